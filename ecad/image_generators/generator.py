"""A loaded pipeline that makes the same image for the same prompt, seed and schedule, whatever else is in the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import check_size
from ecad.errors import EcadError, NotFiniteError
from ecad.prompts.embeds import PromptEmbeds
from ecad.runtime.cache import cached
from ecad.runtime.calibration import recorded_products
from ecad.schedules import CacheSchedule
from ecad.schedules.rows import rows_of, steps_of
from ecad.utils.batching import AdaptiveBatches
from ecad.utils.fingerprints import part_fingerprint, weights_fingerprint
from ecad.utils.seeds import check_seeds


@dataclass(frozen=True)
class ImageGenerator:
    """A diffusers pipeline with the settings it is used at.

    Args:
        name: the registered name.
        pipe: the loaded pipeline.
        architecture: sizes and denoiser configuration, for its cost.
        steps: denoising steps.
        guidance_scale: strength of the prompt; None: the pipeline's own.
        encode_prompts: (pipe, prompts, tokens) -> PromptEmbeds.
        pipeline_inputs: PromptEmbeds -> the pipeline's keyword arguments.
        call: further keyword arguments of every call of the pipeline.
        max_tokens: longer prompts are cut here; None if that is the pipeline's business.
        text_width: numbers of an embedding's token.
        text_parts: components whose work is in the embeddings, so that no image needs them.
        making, encoding: how many images, and prompts, there is memory for at once, as it turns out.
    """

    name: str
    pipe: Any
    architecture: Architecture
    steps: int
    guidance_scale: float | None
    encode_prompts: Callable[[Any, Sequence[str], int | None], PromptEmbeds]
    pipeline_inputs: Callable[[PromptEmbeds], dict[str, Tensor | None]]
    call: dict[str, Any]
    max_tokens: int | None
    text_width: int
    text_parts: tuple[str, ...] = ()
    making: AdaptiveBatches = field(default_factory=lambda: AdaptiveBatches("images"), repr=False, compare=False)
    encoding: AdaptiveBatches = field(default_factory=lambda: AdaptiveBatches("prompts"), repr=False, compare=False)

    def fingerprint(self) -> str:
        """The fingerprint of the denoiser's weights: 16 hexadecimal digits."""
        return weights_fingerprint(self.pipe.transformer)

    def text_fingerprint(self) -> str:
        """The fingerprint of the text encoders' weights: 16 hexadecimal digits."""
        encoders = [part for name, part in self.pipe.components.items() if name.startswith("text_encoder")]
        return weights_fingerprint(*encoders)

    def rows(self, steps: int | None = None) -> int:
        """How many rows a schedule has that is for so many steps of this generator, by default its own number."""
        return rows_of(self.pipe.scheduler, self.steps if steps is None else steps)

    def parts(self) -> dict[str, str]:
        """Fingerprints of all that images depend on beside their embeddings and the arguments of the pipeline's call.

        Returns:
            component of the pipeline -> sixteen hex digits (see `part_fingerprint`), and the pipeline itself with the
            plain values of its configuration. What makes embeddings is in `text_parts_fingerprints`.
        """
        loaded = {name: part for name, part in self.pipe.components.items() if part is not None}
        return {
            "pipeline": part_fingerprint(self.pipe),
            **{name: part_fingerprint(part) for name, part in loaded.items() if name not in self.text_parts},
        }

    def text_parts_fingerprints(self) -> dict[str, str]:
        """`parts` of what makes embeddings; empty for a pipeline that is given its prompts as text."""
        loaded = {name: self.pipe.components.get(name) for name in self.text_parts}
        return {name: part_fingerprint(part) for name, part in loaded.items() if part is not None}

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in, and so the precision that its embeddings are stored in."""
        module: torch.nn.Module = self.pipe.transformer or self.pipe.text_encoder
        return next(module.parameters()).dtype

    def count_cut(self, prompts: Sequence[str]) -> int:
        """How many prompts have more tokens than the model reads; `encode` leaves the rest of each away."""
        if self.max_tokens is None:
            return 0
        tokenizer = getattr(self.pipe, "tokenizer_2", None) or self.pipe.tokenizer
        return sum(len(tokens) > self.max_tokens for tokens in tokenizer(list(prompts)).input_ids)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> PromptEmbeds:
        """The text embeddings of some prompts, one entry a prompt; in smaller batches where memory runs out."""

        def encode(places: range) -> PromptEmbeds:
            return self.encode_prompts(self.pipe, [prompts[i] for i in places], self.max_tokens)

        return PromptEmbeds.joined(self.encoding.run(encode, len(prompts)))

    @torch.no_grad()
    def generate(
        self,
        embeds: PromptEmbeds,
        seeds: Sequence[int],
        schedule: CacheSchedule | None = None,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> np.ndarray:
        """Images of a batch of prompts, made in smaller batches where memory runs out.

        Args:
            embeds: one entry an image.
            seeds: one an image; its noise comes from a generator of its own, so it does not depend on the batch.
            schedule: what to recompute; None recomputes everything.
            steps, guidance_scale, height, width: instead of the generator's own; the sizes in pixels. By default as
                many steps as make the schedule's rows.

        Returns:
            uint8 (images, height, width, 3).

        Raises:
            EcadError: as many embeddings as seeds were expected, or a seed is none that PyTorch takes.
            ScheduleError: the schedule does not fit the model or the number of steps.
            NotFiniteError: the model gives NaN or infinity.
        """
        if len(embeds) != len(seeds):
            raise EcadError(f"a batch needs one seed an image: expected {len(embeds)} seeds, found {len(seeds)}")
        settings = {
            "num_inference_steps": self._steps_for(schedule) if steps is None else steps,
            "guidance_scale": self.guidance_scale if guidance_scale is None else guidance_scale,
        }
        if settings["guidance_scale"] is None:
            del settings["guidance_scale"]
        sizes = {
            "height": self.architecture.height if height is None else height,
            "width": self.architecture.width if width is None else width,
        }
        check_seeds(seeds)
        check_size(self.architecture, **sizes)
        if self.architecture.measured is None:  # else `call` has what the pipeline is to be told, and that size is it
            settings |= sizes

        def make(places: range) -> np.ndarray:
            return self._run(embeds[places], [seeds[i] for i in places], schedule, settings)

        return np.concatenate(self.making.run(make, len(seeds)))

    def output_products(self, embeds: PromptEmbeds, seeds: Sequence[int]) -> np.ndarray | None:
        """How alike the denoiser's outputs, after guidance, at any two steps of some uncached images are.

        Args:
            embeds, seeds: as for `generate`.

        Returns:
            float64 (rows, rows), for `CacheSchedule.output_products`; None if the sampler took other rows.
        """
        with recorded_products(self.pipe, self.rows()) as seen:
            self.generate(embeds, seeds)
        return seen.table()

    def _steps_for(self, schedule: CacheSchedule | None) -> int:
        if schedule is None:
            return self.steps
        return steps_of(self.pipe.scheduler, schedule.num_steps, schedule.name)

    def _run(
        self, embeds: PromptEmbeds, seeds: Sequence[int], schedule: CacheSchedule | None, settings: dict[str, Any]
    ) -> np.ndarray:
        # Noise is drawn on the CPU: the same seed gives the same image on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with nullcontext() if schedule is None else cached(self.pipe, schedule):
            images = pictures_of(
                self.pipe(
                    **self.pipeline_inputs(embeds), **self.call, **settings, generator=generators, output_type="np"
                )
            )
        if not np.isfinite(images).all():
            under = "without a schedule" if schedule is None else f"under schedule {schedule.name!r}"
            raise NotFiniteError(f"{self.name} {under}: expected images, found values that are no finite numbers")
        pixels = np.asarray(np.round(images * 255), dtype=np.uint8)
        if (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3)).any():
            warnings.warn(
                f"{self.name}: some images are one colour throughout; they count like any other: look at them",
                RuntimeWarning,
                stacklevel=2,
            )
        return pixels


def pictures_of(output: Any) -> np.ndarray:
    """The images of a pipeline's output, float (images, height, width, 3); a video is a strip, its frames downwards."""
    if hasattr(output, "images"):
        return np.asarray(output.images)
    frames = np.asarray(output.frames)
    return frames.reshape(len(frames), -1, *frames.shape[3:])
