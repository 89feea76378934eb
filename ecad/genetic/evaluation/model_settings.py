"""The model and the problem of a search, as a command reads them from its flags, before PyTorch is imported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ecad.genetic.genes import Forecast

if TYPE_CHECKING:
    from ecad.cost.architectures import Architecture
    from ecad.genetic.problem import Problem


@dataclass(frozen=True)
class ModelSettings:
    """The model to search.

    Args:
        image_generator, weights, device: as for `get_image_generator`.
        batch_size: images per batch.
    """

    image_generator: str
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 8


@dataclass(frozen=True)
class ProblemSettings:
    """The problem to search.

    Args:
        timed: whether the cost is time, measured in this process, instead of MACs.
        forecast: whether schedules extrapolate: "never", "always" or "either".
        max_cached_bytes: the most that a schedule may keep per image; None sets no limit.
        steps: numbers of steps, one search each; none for the generator's own. Scores of several are relative to the
            uncached images of the most steps.
    """

    timed: bool = False
    forecast: Forecast = "never"
    max_cached_bytes: int | None = None
    steps: tuple[int, ...] = ()

    @property
    def reference_steps(self) -> int | None:
        """Number of steps of the images that all searches' scores are relative to; None for one search's own."""
        return max(self.steps) if len(self.steps) > 1 else None

    @property
    def may_fit(self) -> bool:
        """Whether schedules may have output weights: these keep an output more."""
        return self.forecast != "never" and self.max_cached_bytes is None

    def apply(self, problem: Problem, architecture: Architecture) -> Problem:
        """A problem with these forecasts and this memory limit."""
        from ecad.genetic.evaluation.problems import within_memory  # imports torch, which takes seconds

        return within_memory(replace(problem, forecast=self.forecast), architecture, self.max_cached_bytes)
