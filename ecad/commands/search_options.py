"""The flags of `ecad optimize`, in groups, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ecad import builtin
from ecad.commands.options import finite
from ecad.errors import EcadError
from ecad.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from ecad.genetic.evaluation.pool import ImageSet
    from ecad.genetic.evaluation.workers import ProblemSettings
    from ecad.genetic.problem import Problem
    from ecad.schedules import CacheSchedule

# The seeds of the search count from 0.
HELD_OUT_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
SEARCH_PROMPTS, VALIDATION_PROMPTS, HELD_OUT_PROMPTS = 4, 8, 24


@dataclass(frozen=True)
class ImageSets:
    """What is scored, by disjoint prompts.

    Args:
        search: the images that candidates are scored on.
        validation: those that select what is exported; None if there are no prompts for it.
        held_out: one entry per scorer; nothing is selected by them.
    """

    search: ImageSet
    validation: ImageSet | None
    held_out: list[ImageSet]

    def all(self) -> list[ImageSet]:
        """The search's, then the held-out ones, then that of the validation."""
        return [self.search, *self.held_out, *([self.validation] if self.validation else [])]


@dataclass(frozen=True)
class ScoringOptions:
    """The flags that say which images are made and how they are scored."""

    prompt_file: Annotated[
        Path | None, typer.Option(help="Prompts of the search; by default built-in ones, with a built-in model.")
    ] = None
    num_prompts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of the prompts search; the next ones validate, which selects what is exported, and those "
            "after them are held out. By default a prompt file searches with all; of the built-in ones 4 do.",
        ),
    ] = None
    num_images_per_prompt: Annotated[int, typer.Option(min=1, help="Images per prompt; their seeds count from 0.")] = 1
    quality: Annotated[
        str,
        typer.Option(
            help="Scorer to maximise. psnr, ssim: similarity to the uncached image; image_reward, clip, pick, judge: "
            "quality for the prompt; a+b: sum of two."
        ),
    ] = "psnr"
    second_quality: Annotated[
        str | None, typer.Option(help="Second scorer for the held-out images, to detect overfitting to the first.")
    ] = None
    held_out_file: Annotated[
        Path | None,
        typer.Option(help="Held-out prompts to score the front on; by default built-in ones, with a built-in model."),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 8

    def image_sets(self, image_generator: str) -> ImageSets:
        """The images of the search, those that validate, and the held-out ones for each scorer."""
        from ecad.genetic.evaluation.pool import ImageSet

        searching, validating, rest = self._split(self._prompts(image_generator))
        search = ImageSet(searching, range(self.num_images_per_prompt), self.quality)
        validation = ImageSet(validating, [VALIDATION_SEED], self.quality) if validating else None
        held_out = self._held_out(image_generator) or rest[:HELD_OUT_PROMPTS]
        scorers = [self.quality, *self._second_scorer(image_generator)] if held_out else []
        return ImageSets(search, validation, [ImageSet(held_out, [HELD_OUT_SEED], scorer) for scorer in scorers])

    def _prompts(self, image_generator: str) -> list[Prompt]:
        if self.prompt_file is not None:
            return read_prompts(self.prompt_file)
        if image_generator not in builtin.GENERATORS:
            raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
        return [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search"))]

    def _split(self, prompts: list[Prompt]) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
        """Prompts that search, that validate, and those that are left; disjoint."""
        first = self.num_prompts or (len(prompts) if self.prompt_file else SEARCH_PROMPTS)
        if len(prompts) < first:
            raise EcadError(f"{self.prompt_file}: expected at least {first} prompts, found {len(prompts)}")
        last = first + VALIDATION_PROMPTS
        return prompts[:first], prompts[first:last], prompts[last:] if self.prompt_file else []

    def _held_out(self, image_generator: str) -> list[Prompt]:
        if self.held_out_file is not None:
            return read_prompts(self.held_out_file)
        if self.prompt_file is not None and self.num_prompts is not None:
            return []
        texts = builtin.prompts("held_out")[:HELD_OUT_PROMPTS] if image_generator in builtin.GENERATORS else []
        return [Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(texts)]

    def _second_scorer(self, image_generator: str) -> list[str]:
        """The second scorer; for a built-in model by default the other of its two, whose weights are at hand."""
        second = self.second_quality
        if second is None and image_generator in builtin.GENERATORS:
            second = "psnr" if self.quality == "judge" else "judge"
        if second == self.quality:
            raise EcadError(f"--second-quality: expected another scorer than --quality, found {second!r} twice")
        return [] if second is None else [second]


@dataclass(frozen=True)
class ProblemOptions:
    """The flags that say what a schedule costs and which schedules are allowed."""

    cost: Annotated[str, typer.Option(help="macs, or latency: time measured on this device and added up by site.")] = (
        "macs"
    )
    target_speedup: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            min=1,
            help="Smallest reduction of the cost that is of use, such as 2; the search skips smaller ones.",
        ),
    ] = None
    min_quality: Annotated[
        float | None, typer.Option(callback=finite, help="Lowest quality that is of use; the search skips lower ones.")
    ] = None
    max_cached_mb: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Memory limit: megabytes of cached features per image.")
    ] = None
    forecast: Annotated[
        bool | None,
        typer.Option(help="Extrapolate reused outputs from the last two computed ones; by default mode fast decides."),
    ] = None

    def settings(self, mode: str) -> ProblemSettings:
        """The same for the library; a mode other than fast extrapolates only if told to."""
        from ecad.genetic.evaluation.workers import ProblemSettings

        if self.cost not in ("macs", "latency"):
            raise EcadError(f"--cost {self.cost!r} is unknown: expected macs or latency")
        forecast: Literal["never", "always", "either"] = "always" if self.forecast else "never"
        if self.forecast is None and mode == "fast":
            forecast = "either"
        max_bytes = None if self.max_cached_mb is None else int(self.max_cached_mb * 1e6)
        return ProblemSettings(self.cost == "latency", forecast, max_bytes)

    def max_cost(self, problem: Problem) -> float | None:
        """The largest cost that reaches the target speed-up."""
        if self.target_speedup is None:
            return None
        most = problem.uncached_cost / self.target_speedup
        if most < problem.cheapest_cost:
            fastest = problem.uncached_cost / problem.cheapest_cost
            raise EcadError(
                f"--target-speedup {self.target_speedup:g}: no schedule reaches it; the largest reduction is "
                f"{fastest:.2f}x"
            )
        return most


@dataclass(frozen=True)
class AlgorithmOptions:
    """The flags that say how the search proceeds and when it ends."""

    mode: Annotated[str, typer.Option(help="fast, or paper: the search as published.")] = "fast"
    population_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates per generation; by default 12, or 72 in mode paper.")
    ] = None
    generations: Annotated[
        int | None, typer.Option(min=1, help="Stop after N generations of the study, the first included.")
    ] = None
    max_minutes: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Stop after N minutes spent on the study.")
    ] = None
    initial_dir: Annotated[Path | None, typer.Option(help="Folder of schedules to start from.")] = None
    random_start: Annotated[
        bool, typer.Option(help="Mode paper: start from random schedules instead of heuristics.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the search.")] = 0
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous",
            help="Mode fast: give a worker its next batch at once; results then depend on the workers' speed.",
        ),
    ] = False

    def check(self) -> None:
        """Raise EcadError if the search would never end."""
        if self.generations is None and self.max_minutes is None:
            raise EcadError("give --generations or --max-minutes: the search has no end of its own")

    def initial(self) -> list[CacheSchedule]:
        """The schedules of `initial_dir`."""
        from ecad.schedules.files import load_schedules

        return [] if self.initial_dir is None else [*load_schedules(self.initial_dir).values()]
