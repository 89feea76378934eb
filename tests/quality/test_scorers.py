"""The table of scorers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError
from ecad.quality import Judge, get_scorer, psnr
from ecad.quality.clip import Clip

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
TEXTS = ["a crab", "an owl"]


def test_judge_clip_and_pick_are_one_model_in_three_units() -> None:
    judge = Judge()
    scorers = {name: get_scorer(name, JUDGE_FOLDER, "cpu") for name in ("judge", "clip", "pick")}
    expected = judge.score(IMAGES, TEXTS)
    scale = float(judge.model.logit_scale.detach().exp())
    for name, unit in (("judge", 1), ("clip", 1), ("pick", scale / 100)):
        assert scorers[name].score(IMAGES, TEXTS, None) == pytest.approx(unit * expected, rel=1e-5)
        assert not scorers[name].compares
    assert len({scorer.version.split()[-1] for scorer in scorers.values()}) == 1


def test_images_without_room_are_scored_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, texts = get_scorer("judge", JUDGE_FOLDER, "cpu"), [*TEXTS, "a pear"]
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    whole = scorer.score(images, texts, None)
    vision = Clip.embed_images

    def full(self: object, some: Sequence[np.ndarray]) -> object:
        return torch.empty(1 << 60, dtype=torch.uint8) if len(some) > 1 else vision(self, some)

    monkeypatch.setattr(Clip, "embed_images", full)
    with pytest.warns(RuntimeWarning, match="not enough memory for a batch size of 3"):
        found = scorer.score(images, texts, None)
    assert found == pytest.approx(whole, rel=1e-5)


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    judge = Judge()
    with np.errstate(all="ignore"):
        next(judge.model.parameters()).data.add_(1)
    judge.model.save_pretrained(tmp_path)
    judge.tokenizer.save_pretrained(tmp_path)
    judge.processor.save_pretrained(tmp_path)
    versions = {get_scorer("clip", folder, "cpu").version.split()[-1] for folder in (JUDGE_FOLDER, tmp_path)}
    assert len(versions) == 2


def test_another_tokenizer_or_image_processor_is_another_part(tmp_path: Path) -> None:
    judge = Judge()
    judge.model.save_pretrained(tmp_path)
    judge.processor.size = {"shortest_edge": 32}
    judge.processor.save_pretrained(tmp_path)
    judge.tokenizer.add_tokens(["crab"])
    judge.tokenizer.save_pretrained(tmp_path)
    own, other = (get_scorer("judge", folder, "cpu") for folder in (JUDGE_FOLDER, tmp_path))
    assert own.version.split()[-1] == other.version.split()[-1]
    assert {name: own.parts[name] != other.parts[name] for name in own.parts} == {
        "tokenizer": True,
        "image_processor": True,
    }
    assert get_scorer("judge", JUDGE_FOLDER, "cpu").parts == own.parts


def test_lpips_names_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self, device: str) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
            self.network = self.layer

    monkeypatch.setattr("ecad.quality.scorers.Lpips", Network)
    torch.manual_seed(0)
    first, second = (get_scorer("lpips", device="cpu").parts["network"] for _ in range(2))
    assert first != second


def test_fidelity_compares_pairs_of_any_size() -> None:
    scorer = get_scorer("psnr")
    other = np.clip(IMAGES.astype(int) + 3, 0, 255).astype(np.uint8)
    small = np.zeros((8, 16, 3), np.uint8)
    found = scorer.score([*IMAGES, small], [*TEXTS, "x"], [*other, small])
    assert scorer.compares
    assert found.tolist() == [*psnr(IMAGES, other), *psnr(small[None], small[None])]


@pytest.mark.parametrize(
    ("name", "weights", "told"),
    [
        ("beauty", None, "scorer 'beauty' is unknown: expected one of image_reward, clip, pick, judge, psnr"),
        ("psnr", "x", "has no weights"),
        ("pick", None, "yuvalkirstain/PickScore_v1"),
    ],
)
def test_a_mistake_is_named(name: str, weights: str | None, told: str) -> None:
    with pytest.raises(EcadError, match=told):
        get_scorer(name, weights, "cpu")
    with pytest.raises(EcadError, match="device 'nose' is not available"):
        get_scorer("psnr", None, "nose")
