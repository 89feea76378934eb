"""EasyCache (Zhou et al., arXiv 2507.02860), and LazyCache, its variant in ComfyUI, reimplemented from descriptions.

Both watch the denoiser from outside. The change of its output since a computed step is predicted from the change of its
input, by the ratio of the two between the last computed steps. While the sum of predicted relative changes is below a
threshold, the denoiser does not run, and the last computed difference of output and input is added to the input.
EasyCache takes the denoiser's own output, each guidance half by itself, and lets the conditional half decide. LazyCache
takes the denoised latents after guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rivals.noise_scale import denoised_latents, prediction_of, scales, with_variance
from rivals.put_back import put_back
from rivals.setting import Calibration, Setting

# The authors' warm-up is 10 of 50 steps, thresholds 0.025 (HunyuanVideo) and 0.05 (Wan). ComfyUI's threshold is 0.2.
EASY_WARMUP, EASY = 0.2, (0.025, 0.05, 0.1, 0.2, 0.3, 0.5)
# ComfyUI's node starts at 15% of the steps and ends at 95%.
LAZY_WARMUP, LAZY = 0.15, (0.01, 0.025, 0.05, 0.1, 0.2, 0.4)


def all_of_easy_cache(calibration: Calibration) -> list[Setting]:
    """Both at all thresholds."""
    guided = calibration.generator.architecture.guidance_pair
    found = []
    for rival, share, thresholds, applied in (
        ("EasyCache", EASY_WARMUP, EASY, easy_cache),
        ("LazyCache", LAZY_WARMUP, LAZY, lazy_cache),
    ):
        warmup = max(2, round(share * calibration.steps))
        if warmup + 1 >= calibration.steps:
            found.append(Setting(rival, "all", unusable=f"{calibration.steps} steps end with its warm-up"))
            continue
        for threshold in thresholds:
            given = {"threshold": threshold, "warmup": warmup}
            found.append(Setting(rival, str(threshold), given, partial(applied, threshold, warmup, guided)))
    return found


@dataclass
class Change:
    """The predicted relative change of an output since it was computed.

    Args:
        threshold: the sum from which the output is computed again.
        every_step: the input's change is counted from the step before; otherwise from the last computed step.
    """

    threshold: float
    every_step: bool
    sum: float = 0.0
    ratio: float | None = None
    seen: torch.Tensor | None = None
    computed: tuple[torch.Tensor, torch.Tensor] | None = None

    def is_small(self, now: torch.Tensor) -> bool:
        """Whether the output for this input need not be computed."""
        small = False
        if self.computed is not None and self.ratio is not None and self.seen is not None:
            before, output = self.computed
            since = self.seen if self.every_step else before
            self.sum += self.ratio * float((now - since).abs().mean() / output.abs().mean())
            small = self.sum < self.threshold
        if not small:
            self.sum = 0.0
        self.seen = now
        return small

    def update(self, now: torch.Tensor, output: torch.Tensor) -> None:
        """Take note of a computed output and its input."""
        if self.computed is not None:
            before, old = self.computed
            self.ratio = float((output - old).abs().mean() / (now - before).abs().mean())
        self.seen, self.computed = now, (now, output)


@contextmanager
def _deciding(
    pipe: Any,
    new: Callable[[], Change],
    warmup: int,
    watched: Callable[[torch.Tensor], torch.Tensor],
    reused: Callable[[torch.Tensor], torch.Tensor],
    computed: Callable[[Change, torch.Tensor, torch.Tensor], None],
) -> Iterator[None]:
    """Run a denoiser, or return what `reused` makes of its input.

    Args:
        pipe: a diffusers pipeline with a transformer.
        new: makes the state of a generation.
        warmup: number of first steps that run; the last one does, too.
        watched: the part of the input that decides, as it is compared.
        reused: input of the denoiser -> output.
        computed: called with the state, the input and the output of a denoiser that ran.
    """
    transformer, scheduler, change = pipe.transformer, pipe.scheduler, new()

    def forward(original: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal change
        latents = args[0] if args else kwargs["hidden_states"]
        step = scheduler.step_index or 0
        if step == 0:
            change = new()
        small = change.is_small(watched(latents))
        if small and warmup <= step < len(scheduler.timesteps) - 1:
            return (reused(latents),)
        change.sum = 0.0
        output = original(*args, **kwargs)
        computed(change, latents, output[0])
        return output

    with put_back(pipe):
        transformer.forward = partial(forward, transformer.forward)
        yield


def easy_cache(threshold: float, warmup: int, guided: bool, pipe: Any) -> Any:
    """A context with EasyCache.

    Args:
        threshold: as for `Change`.
        warmup: number of first steps that run.
        guided: whether the denoiser's batch is an unconditional and a conditional half.
        pipe: a diffusers pipeline whose denoiser's output has the shape of its input, or a variance after it.
    """
    difference = last = torch.empty(0)

    def half(batch: torch.Tensor) -> torch.Tensor:
        return batch.chunk(2)[1] if guided else batch

    def computed(change: Change, latents: torch.Tensor, output: torch.Tensor) -> None:
        nonlocal difference, last
        last, prediction = output, output[:, : latents.shape[1]]
        difference = prediction - latents
        change.update(half(latents), half(prediction))

    def reused(latents: torch.Tensor) -> torch.Tensor:
        return with_variance(latents + difference, last)

    return _deciding(pipe, lambda: Change(threshold, every_step=True), warmup, half, reused, computed)


@contextmanager
def lazy_cache(threshold: float, warmup: int, guided: bool, pipe: Any) -> Iterator[None]:
    """Within the `with`, a pipeline runs with LazyCache.

    Args:
        threshold, warmup, guided, pipe: as for `easy_cache`.
    """
    scheduler, difference, last = pipe.scheduler, torch.empty(0), torch.empty(0)
    running: Change | None = None

    def noisy(latents: torch.Tensor) -> torch.Tensor:
        """The latents in the scale in which noise is only added, as ComfyUI's samplers have them."""
        one = latents.chunk(2)[0] if guided else latents
        return one / scales(scheduler)[0]

    def reused(latents: torch.Tensor) -> torch.Tensor:
        prediction = prediction_of(scheduler, noisy(latents), noisy(latents) + difference)
        return with_variance(torch.cat([prediction, prediction]) if guided else prediction, last)

    def computed(change: Change, latents: torch.Tensor, output: torch.Tensor) -> None:
        nonlocal running, last
        running, last = change, output

    def step(original: Any, prediction: torch.Tensor, timestep: Any, latents: torch.Tensor, **kwargs: Any) -> Any:
        nonlocal difference, running
        if running is not None:
            now = latents / scales(scheduler)[0]
            denoised = denoised_latents(scheduler, now, prediction)
            difference = denoised - now
            running.update(now, denoised)
            running = None
        return original(prediction, timestep, latents, **kwargs)

    with _deciding(pipe, lambda: Change(threshold, every_step=False), warmup, noisy, reused, computed):
        scheduler.step = partial(step, scheduler.step)
        yield
