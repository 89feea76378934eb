"""One rival at one setting, and how it is enabled on a pipeline."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecad.image_generators import ImageGenerator
from ecad.runtime.cache import cached
from ecad.schedules import CacheSchedule


@dataclass(frozen=True)
class Setting:
    """A rival at one setting.

    Args:
        rival: the method.
        name: the setting in a few words.
        parameters: all parameters, as JSON values.
        applied: a context that enables it on a pipeline.
        steps: number of denoising steps, if it differs from the comparison's.
        unusable: why it cannot be applied to this model, or None.
    """

    rival: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    applied: Callable[[Any], AbstractContextManager[Any]] = nullcontext
    steps: int | None = None
    unusable: str | None = None

    @property
    def key(self) -> str:
        """A name for files and dictionaries that depends on all parameters."""
        digest = hashlib.sha256(json.dumps([self.parameters, self.steps]).encode()).hexdigest()[:6]
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.rival} {self.name} {digest}".lower()).strip("-")


@dataclass(frozen=True)
class Calibration:
    """The images that rivals may use for calibration, which never include the held-out prompts.

    Args:
        generator: the model.
        prompts: the prompts.
        steps: number of denoising steps of the comparison.
    """

    generator: ImageGenerator
    prompts: tuple[str, ...]
    steps: int

    def run(self) -> None:
        """Make the images of all prompts, uncached unless something is enabled on the pipeline."""
        self.generator.generate(self.generator.encode(self.prompts), range(len(self.prompts)), steps=self.steps)


def of_schedule(rival: str, name: str, schedule: CacheSchedule, parameters: Mapping[str, Any]) -> Setting:
    """A rival that is a schedule, run by ecad."""
    bits = hashlib.sha256(np.packbits(schedule.recompute).tobytes()).hexdigest()[:16]
    forecast: dict[str, Any] = {}
    if schedule.forecast:
        products = schedule.output_products
        forecast["forecast"] = True if products is None else hashlib.sha256(products.tobytes()).hexdigest()[:16]
    if schedule.output_weights is not None:
        forecast["weights"] = hashlib.sha256(json.dumps(schedule.output_weights).encode()).hexdigest()[:16]
    return Setting(rival, name, {**parameters, "bits": bits, **forecast}, lambda pipe: cached(pipe, schedule))
