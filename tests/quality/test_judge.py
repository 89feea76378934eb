from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecad.builtin import prompts
from ecad.errors import EcadError
from ecad.image_generators import get_image_generator
from ecad.quality import Judge

PROMPTS = prompts("held_out")[:8]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    generator = get_image_generator("EmojiImageGenerator", device="cpu")
    return generator.generate(generator.encode(PROMPTS), range(len(PROMPTS)))


def test_images_fit_their_own_prompts_better_than_others(judge: Judge, images: np.ndarray) -> None:
    own, others = judge.score(images, PROMPTS), judge.score(images, PROMPTS[1:] + PROMPTS[:1])
    assert own.shape == (8,)
    assert (own > others).all()


def test_noise_scores_lower(judge: Judge, images: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    assert judge.score(noise, PROMPTS).mean() < judge.score(images, PROMPTS).mean() - 10


def test_a_score_is_of_its_own_image_alone(judge: Judge, images: np.ndarray) -> None:
    alone = np.concatenate([judge.score(images[[i]], PROMPTS[i : i + 1]) for i in range(len(images))])
    assert judge.score(images, PROMPTS) == pytest.approx(alone, abs=1e-3)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EcadError, match="cannot load a CLIPModel"):
        Judge(tmp_path)
