"""A loaded pipeline whose images depend on prompt, seed and schedule only, and not on the batch that they are in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import check_size
from ecad.errors import EcadError, NotFiniteError, first_line
from ecad.image_generators.trial import Trial
from ecad.prompts.embeds import PromptEmbeds
from ecad.runtime.cache import cached, enabled_runs
from ecad.runtime.calibration import recorded_products
from ecad.schedules import CacheSchedule
from ecad.schedules.joint import by_denoiser
from ecad.schedules.rows import rows_of, steps_of
from ecad.sites.discovery import denoisers, find_denoisers
from ecad.utils.batching import AdaptiveBatches
from ecad.utils.fingerprints import part_fingerprint, weights_fingerprint
from ecad.utils.protocols import Pipeline
from ecad.utils.seeds import check_seeds


@dataclass(frozen=True)
class ImageGenerator:
    """A diffusers pipeline with its settings.

    Args:
        name: the registered name, or that of the pipeline.
        pipe: the loaded pipeline.
        architecture: sizes and denoiser configuration, from which costs are computed.
        steps: number of denoising steps.
        guidance_scale: strength of the prompt; None for the pipeline's default.
        encode_prompts: (pipe, prompts, max_tokens) -> PromptEmbeds.
        pipeline_inputs: PromptEmbeds -> keyword arguments of the pipeline.
        call: further keyword arguments of every call of the pipeline.
        max_tokens: prompts are truncated to this number of tokens; None if the pipeline decides.
        text_width: width of the text embeddings.
        text_parts: components that only encode text, and are not needed to make images from embeddings.
        making, encoding: batch sizes of images and of prompts that fit into memory, as found so far.
    """

    name: str
    pipe: Pipeline
    architecture: Architecture
    steps: int
    guidance_scale: float | None
    encode_prompts: Callable[[Pipeline, Sequence[str], int | None], PromptEmbeds]
    pipeline_inputs: Callable[[PromptEmbeds], dict[str, Tensor | None]]
    call: Mapping[str, object]
    max_tokens: int | None
    text_width: int
    text_parts: tuple[str, ...] = ()
    images: Mapping[str, object] = field(default_factory=dict, repr=False)
    image_digests: Mapping[str, object] = field(default_factory=dict)
    making: AdaptiveBatches = field(default_factory=lambda: AdaptiveBatches("images"), repr=False, compare=False)
    encoding: AdaptiveBatches = field(default_factory=lambda: AdaptiveBatches("prompts"), repr=False, compare=False)

    def fingerprint(self) -> str:
        """The fingerprint of the denoiser's weights: 16 hexadecimal digits."""
        return weights_fingerprint(*denoisers(self.pipe).values())

    def text_fingerprint(self) -> str:
        """The fingerprint of the text encoders' weights: 16 hexadecimal digits."""
        encoders = [part for name, part in self.pipe.components.items() if name.startswith("text_encoder")]
        return weights_fingerprint(*encoders)

    def call_settings(self) -> dict[str, object]:
        """What every call of the pipeline is given beside prompts and sizes, as JSON values; pictures as digests."""
        images = {"images": dict(self.image_digests)} if self.image_digests else {}
        return {**self.call, **images}

    def rows(self, steps: int | None = None) -> int:
        """The number of rows of a schedule for this generator with a number of steps, by default its own."""
        return rows_of(self.pipe.scheduler, self.steps if steps is None else steps)

    def architecture_for(self, rows: int) -> Architecture:
        """The architecture, from which costs are computed, for a number of rows.

        Where a denoiser does not run in every row (two denoisers, image-to-image), a trial image tells in which of
        them it runs; otherwise the architecture holds for any number.

        Args:
            rows: of a schedule.

        Raises:
            ScheduleError: the sampler cannot make this number of rows.
            EcadError: the pipeline cannot make an image in them.
        """
        measured = self.architecture.measured or {}
        runs = measured.get("runs")
        if runs is None or runs["rows"] == rows:
            return self.architecture
        trial = Trial(self.pipe, denoisers(self.pipe))
        guidance = {} if self.guidance_scale is None else {"guidance_scale": self.guidance_scale}
        steps = steps_of(self.pipe.scheduler, rows, f"{rows} rows")
        try:
            trial.run({**self.call, **self.images, **guidance}, steps)
        except Exception as error:  # the pipeline may be anybody's code
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise EcadError(f"{self.name}: failed to make an image in {steps} steps: {reason}") from error
        ranges = [seen.range for seen in trial.seen.values()]
        found = [
            {**one, "first": first, "last": last} for one, (first, last) in zip(runs["denoisers"], ranges, strict=True)
        ]
        return replace(self.architecture, measured={**measured, "runs": {"rows": rows, "denoisers": found}})

    def at_steps(self, steps: int | None) -> ImageGenerator:
        """The same generator with another number of steps by default; None keeps its own."""
        if steps is None or steps == self.steps:
            return self
        return replace(self, steps=steps, architecture=self.architecture_for(self.rows(steps)))

    def parts(self) -> dict[str, str]:
        """Fingerprints of everything that images depend on besides embeddings and the arguments of the call.

        Returns:
            component of the pipeline -> 16 hexadecimal digits (see `part_fingerprint`); "pipeline" stands for the plain
            values of its configuration. Components that encode text are in `text_parts_fingerprints`.
        """
        loaded = {name: part for name, part in self.pipe.components.items() if part is not None}
        return {
            "pipeline": part_fingerprint(self.pipe),
            **{name: part_fingerprint(part) for name, part in loaded.items() if name not in self.text_parts},
        }

    def text_parts_fingerprints(self) -> dict[str, str]:
        """Like `parts`, for the components that encode text; empty for a pipeline that takes prompts as text."""
        loaded = {name: self.pipe.components.get(name) for name in self.text_parts}
        return {name: part_fingerprint(part) for name, part in loaded.items() if part is not None}

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser, in which embeddings are stored."""
        # A generator that only encodes prompts has no denoiser.
        module: torch.nn.Module = next(iter(find_denoisers(self.pipe).values()), None) or self.pipe.text_encoder
        return next(module.parameters()).dtype

    def count_cut(self, prompts: Sequence[str]) -> int:
        """The number of prompts that have more tokens than the model reads, and which `encode` truncates."""
        if self.max_tokens is None:
            return 0
        tokenizer = getattr(self.pipe, "tokenizer_2", None) or self.pipe.tokenizer
        return sum(len(tokens) > self.max_tokens for tokens in tokenizer(list(prompts)).input_ids)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Encode prompts, in smaller batches if memory runs out; one entry per prompt."""

        def encode(batch: range) -> PromptEmbeds:
            return self.encode_prompts(self.pipe, [prompts[i] for i in batch], self.max_tokens)

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
        """Generate one image per prompt, in smaller batches if memory runs out.

        Args:
            embeds: one entry per image.
            seeds: one per image. Each image has its own random generator, so that it does not depend on the batch.
            schedule: what to recompute; None recomputes everything.
            steps, guidance_scale, height, width: override the generator's settings; sizes in pixels. The default number
                of steps is the one that gives the schedule's number of rows.

        Returns:
            uint8 (images, height, width, 3).

        Raises:
            EcadError: the numbers of embeddings and seeds differ, or PyTorch does not accept a seed.
            ScheduleError: the schedule does not fit the model or the number of steps.
            NotFiniteError: an image has NaN or infinite values.
        """
        if len(embeds) != len(seeds):
            raise EcadError(f"a batch needs one seed per image: expected {len(embeds)} seeds, found {len(seeds)}")
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
        if self.architecture.measured is None:  # otherwise `call` has the size, if the pipeline takes one
            settings |= sizes

        def make(batch: range) -> np.ndarray:
            return self._run(embeds[batch], [seeds[i] for i in batch], schedule, settings)

        with nullcontext() if schedule is None else self.enabled(schedule):
            return np.concatenate(self.making.run(make, len(seeds)))

    @contextmanager
    def enabled(self, schedule: CacheSchedule) -> Iterator[None]:
        """Within the `with`, a schedule is enabled on the pipeline, once for any number of calls of `generate` with it.

        Args:
            schedule: as for `generate`.
        """
        wanted = by_denoiser(schedule, list(denoisers(self.pipe)))
        if any(run.schedules == wanted for run in enabled_runs(self.pipe)):
            yield
            return
        with cached(self.pipe, wanted, exact=True):
            yield

    def output_products(self, embeds: PromptEmbeds, seeds: Sequence[int]) -> np.ndarray | None:
        """Measure the inner products of the denoiser's outputs after guidance at any two steps of uncached images.

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
        self, embeds: PromptEmbeds, seeds: Sequence[int], schedule: CacheSchedule | None, settings: Mapping[str, object]
    ) -> np.ndarray:
        # Noise is drawn on the CPU: the same seed gives the same image on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        images = pictures_of(
            self.pipe(
                **self.pipeline_inputs(embeds),
                **self.call,
                **self.images,
                **settings,
                generator=generators,
                output_type="np",
            )
        )
        if not np.isfinite(images).all():
            under = "without a schedule" if schedule is None else f"under schedule {schedule.name!r}"
            raise NotFiniteError(f"{self.name} {under} made images with NaN or infinite values")
        pixels = np.asarray(np.round(images * 255), dtype=np.uint8)
        if (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3)).any():
            warnings.warn(
                f"{self.name}: some images are one colour throughout and are counted like any other; look at them",
                RuntimeWarning,
                stacklevel=2,
            )
        return pixels


def frames_of(output: Any) -> int:
    """The number of frames in each image that `pictures_of` gives."""
    return 1 if hasattr(output, "images") else int(np.asarray(output.frames).shape[1])


def pictures_of(output: Any) -> np.ndarray:
    """The images of a pipeline's output, float (images, height, width, 3). A video is a strip of frames, downwards."""
    if hasattr(output, "images"):
        return np.asarray(output.images)
    frames = np.asarray(output.frames)
    return frames.reshape(len(frames), -1, *frames.shape[3:])
