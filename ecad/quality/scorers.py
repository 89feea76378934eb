"""Scorers by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import nn

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError
from ecad.images.files import Images
from ecad.quality.fidelity import Lpips, psnr, ssim
from ecad.quality.names import check_scorer
from ecad.utils.batching import AdaptiveBatches
from ecad.utils.fingerprints import part_fingerprint, weights_fingerprint
from ecad.utils.versions import SCORER_PARTS

# (images, prompts) -> scores.
Score = Callable[[Images, Sequence[str]], np.ndarray]
# (images, references) -> scores.
Comparison = Callable[[np.ndarray, np.ndarray], np.ndarray]


class _Model(Protocol):
    """A network that scores, with its tokenizer and image processor."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def tokenizer(self) -> object: ...
    @property
    def processor(self) -> object: ...


@dataclass(frozen=True)
class Scorer:
    """A function that gives each image a score.

    Args:
        name: name of the metric.
        version: identifies the weights; empty if there are none.
        compares: whether it needs `references`, the uncached images of the same prompts and seeds.
        score: (images, prompts, references) -> float64 (n,); `references` is None for a scorer that does not compare.
        parts: fingerprints of what scores depend on beside `version`: tokenizer and image processor, or LPIPS' network.
    """

    name: str
    version: str
    compares: bool
    score: Callable[[Images, Sequence[str], Images | None], np.ndarray]
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, object]:
        """What tells its scores apart from others, as JSON values."""
        parts = {SCORER_PARTS: dict(self.parts)} if self.parts else {}
        return {"scorer": self.name, "scorer_version": self.version, **parts}


def get_scorer(name: str, weights: str | os.PathLike[str] | None = None, device: str = "auto") -> Scorer:
    """Load a scorer.

    Args:
        name: one of `scorer_names()`.
        weights: a hub id or a local copy that replaces the scorer's default weights.
        device: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        EcadError: the name is unknown, the weights are not found, or the scorer has no weights.

    >>> scorer = get_scorer("psnr")
    >>> scorer.score(np.zeros((1, 8, 8, 3), np.uint8), ["a fox"], np.full((1, 8, 8, 3), 255, np.uint8))
    array([0.])
    """
    from ecad.utils.device import choose_device

    check_scorer(name)
    if name in _COMPARING:
        if weights is not None:
            raise EcadError(f"scorer {name!r} has no weights: leave `weights` out")
        measure, parts = _COMPARING[name](choose_device(device))
        return Scorer(name, "", True, _comparison(measure), parts)
    found, score, version = _SCORERS[name](None if weights is None else os.fspath(weights), choose_device(device))
    version = f"{version} {weights_fingerprint(found.model, digits=12)}"
    parts = {"tokenizer": part_fingerprint(found.tokenizer), "image_processor": part_fingerprint(found.processor)}
    return Scorer(name, version, False, _halving(score), parts)


def _halving(score: Score) -> Callable[..., np.ndarray]:
    """Score in smaller batches if memory runs out."""
    scoring = AdaptiveBatches("images to score")

    def halving(images: Images, prompts: Sequence[str], _: Images | None) -> np.ndarray:
        return np.concatenate(
            scoring.run(lambda places: score([images[i] for i in places], [prompts[i] for i in places]), len(prompts))
        )

    return halving


def _comparison(measure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    def score(images: Images, prompts: Sequence[str], references: Images | None) -> np.ndarray:
        assert references is not None
        # One at a time: the images of a folder may differ in size.
        pairs = zip(images, references, strict=True)
        return np.array([measure(image[None], reference[None])[0] for image, reference in pairs])

    return score


def _image_reward(weights: str | None, device: str) -> tuple[_Model, Score, str]:
    from ecad.quality.image_reward import HUB_ID, ImageReward

    scorer = ImageReward(weights, device)
    return scorer, scorer.score, weights or HUB_ID


def _clip(weights: str | None, device: str) -> tuple[_Model, Score, str]:
    from ecad.quality.clip import Clip

    chosen = weights or "ViT-B/32"
    scorer = Clip(chosen, device)
    return scorer, scorer.score, chosen


def _pick(weights: str | None, device: str) -> tuple[_Model, Score, str]:
    from ecad.quality.clip import Clip

    # The published repository uses the tokenizer and processor of the model that it was fine-tuned from.
    chosen, processor = (weights, None) if weights else ("yuvalkirstain/PickScore_v1", _PICK_PROCESSOR)
    scorer = Clip(chosen, device, processor)
    return scorer, scorer.preference, chosen


def _judge(weights: str | None, device: str) -> tuple[_Model, Score, str]:
    scorer, score, _ = _clip(weights or os.fspath(JUDGE_FOLDER), device)
    return scorer, score, weights or "built-in"


def _lpips(device: str) -> tuple[Lpips, dict[str, str]]:
    lpips = Lpips(device)
    return lpips, {"network": part_fingerprint(lpips.network)}


_PICK_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
# Name -> (weights, device) -> (its model, tokenizer and processor, (images, prompts) -> scores, name of the weights).
_SCORERS: dict[str, Callable[[str | None, str], tuple[_Model, Score, str]]] = {
    "image_reward": _image_reward,
    "clip": _clip,
    "pick": _pick,
    "judge": _judge,
}
# Name -> device -> ((images, references) -> scores, fingerprints).
_COMPARING: dict[str, Callable[[str], tuple[Comparison, dict[str, str]]]] = {
    "psnr": lambda device: (psnr, {}),
    "ssim": lambda device: (ssim, {}),
    "lpips": _lpips,
}
