"""The flags of `ecad optimize`, in groups, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ecad import builtin
from ecad.commands.options import MOST, MOST_STEPS, FileMode, finite
from ecad.errors import EcadError
from ecad.prompts import Prompt, read_prompts
from ecad.quality.names import check_quality

if TYPE_CHECKING:
    from ecad.genetic.budget import Budget, Division
    from ecad.genetic.evaluation.model_settings import ProblemSettings
    from ecad.genetic.evaluation.pool import ImageSet
    from ecad.genetic.evaluation.workers import SearchSetup
    from ecad.genetic.settings import SearchSettings
    from ecad.schedules import CacheSchedule

# The seeds of the search count from 0.
HELD_OUT_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
SEARCH_PROMPTS, VALIDATION_PROMPTS, HELD_OUT_PROMPTS = 4, 8, 24
# Generations that do not improve the front before a search without other limits ends.
PATIENCE = 3


@dataclass(frozen=True)
class ImageSets:
    """What is scored, by disjoint prompts.

    Args:
        search: the images that candidates are scored on.
        validation: those that select what is exported, one entry per round, each with other seeds of the same
            prompts; empty if there are no prompts for it.
        held_out: one entry per scorer; nothing is selected by them.
    """

    search: ImageSet
    validation: list[ImageSet]
    held_out: list[ImageSet]

    def all(self) -> list[ImageSet]:
        """The search's, then the held-out ones, then those of the validation."""
        return [self.search, *self.held_out, *self.validation]


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
            max=MOST,
            help="How many of the prompts search; the next ones validate, which selects what is exported, and those "
            "after them are held out. By default a prompt file searches with all, or with --max-images with a third, "
            "at most 4; of the built-in ones 4 do.",
        ),
    ] = None
    num_images_per_prompt: Annotated[
        int, typer.Option(min=1, max=MOST, help="Images per prompt; their seeds count from 0.")
    ] = 1
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
    file_mode: FileMode = None
    batch_size: Annotated[int, typer.Option(min=1, max=MOST, help="Images per batch.")] = 8

    def check(self, image_generator: str) -> None:
        """Raise EcadError if a scorer is unknown or given twice, or prompts are missing."""
        for name in filter(None, (self.quality, self.second_quality)):
            check_quality(name)
        self._second_scorer(image_generator)

    def divided(self, image_generator: str, max_images: int | None, searches: int) -> Division | None:
        """How images are divided between searches and selection; None without a limit to them."""
        from ecad.genetic.budget import divide

        if max_images is None:
            return None
        searching, validating, _ = self._split(self._prompts(image_generator), is_limited=True)
        is_given = self.num_prompts is not None or not validating
        return divide(
            max_images,
            searches=searches,
            search_prompts=len(searching) * self.num_images_per_prompt if is_given else None,
            most_prompts=len(searching),
            most_validation=len(validating),
        )

    def image_sets(self, image_generator: str, division: Division | None = None) -> ImageSets:
        """The images of the search, those that validate, and the held-out ones for each scorer."""
        from ecad.genetic.evaluation.pool import ImageSet
        from ecad.genetic.selection import ROUNDS

        is_limited = division is not None
        searching, validating, rest = self._split(self._prompts(image_generator), is_limited)
        if division is not None and validating:
            searching = searching[: max(1, division.search_prompts // self.num_images_per_prompt)]
            validating = validating[: division.validation_prompts]
        search = ImageSet(searching, range(self.num_images_per_prompt), self.quality)
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + ROUNDS) if validating else []
        validation = [ImageSet(validating, [seed], self.quality) for seed in seeds]
        held_out = self._held_out(image_generator, is_limited) or rest[:HELD_OUT_PROMPTS]
        scorers = [self.quality, *self._second_scorer(image_generator)] if held_out else []
        return ImageSets(search, validation, [ImageSet(held_out, [HELD_OUT_SEED], scorer) for scorer in scorers])

    def _prompts(self, image_generator: str) -> list[Prompt]:
        if self.prompt_file is not None:
            return read_prompts(self.prompt_file, self.file_mode)  # type: ignore[arg-type]
        if image_generator not in builtin.GENERATORS:
            raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
        return [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search", image_generator))]

    def _split(self, prompts: list[Prompt], is_limited: bool) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
        """Prompts that search, that validate, and those that are left; disjoint."""
        first = self.num_prompts or SEARCH_PROMPTS
        if self.num_prompts is None and self.prompt_file:
            first = min(SEARCH_PROMPTS, -(-len(prompts) // 3)) if is_limited else len(prompts)
        if len(prompts) < first:
            place = self.prompt_file or "the built-in prompts"
            raise EcadError(f"{place}: expected at least {first} prompts (--num-prompts), found {len(prompts)}")
        last = first + VALIDATION_PROMPTS
        return prompts[:first], prompts[first:last], prompts[last:] if self.prompt_file else []

    def _held_out(self, image_generator: str, is_limited: bool) -> list[Prompt]:
        if self.held_out_file is not None:
            return read_prompts(self.held_out_file, self.file_mode)  # type: ignore[arg-type]
        if self.prompt_file is not None and (is_limited or self.num_prompts is not None):
            return []
        is_builtin = image_generator in builtin.GENERATORS
        texts = builtin.prompts("held_out", image_generator)[:HELD_OUT_PROMPTS] if is_builtin else []
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

    steps: Annotated[
        str | None,
        typer.Option(
            help="Denoising steps; several with commas between, such as 10,14,20, are searched one after the other, "
            "against the uncached images of the most. By default the generator's own."
        ),
    ] = None
    cost: Annotated[str, typer.Option(help="macs, or latency: time measured on this device and added up by site.")] = (
        "macs"
    )
    target_speedup: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            min=1,
            help="Smallest useful cost reduction, such as 2; the search skips smaller ones.",
        ),
    ] = None
    min_quality: Annotated[
        float | None, typer.Option(callback=finite, help="Lowest useful quality; the search skips lower ones.")
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
        from ecad.genetic.evaluation.model_settings import ProblemSettings

        if self.cost not in ("macs", "latency"):
            raise EcadError(f"--cost {self.cost!r} is unknown: expected macs or latency")
        told: Literal["never", "always"] = "always" if self.forecast else "never"
        forecast: Literal["never", "always", "either"] = "either" if self.forecast is None and mode == "fast" else told
        max_bytes = None if self.max_cached_mb is None else int(self.max_cached_mb * 1e6)
        return ProblemSettings(self.cost == "latency", forecast, max_bytes, self.numbers_of_steps())

    def numbers_of_steps(self) -> tuple[int, ...]:
        """What `steps` lists, the fewest first; nothing for the generator's own."""
        if self.steps is None:
            return ()
        try:
            found = sorted({int(one) for one in self.steps.split(",")})
        except ValueError:
            found = []
        if not found or not 2 <= found[0] <= found[-1] <= MOST_STEPS:
            expected = f"whole numbers from 2 to {MOST_STEPS} with commas between, such as 10,14,20"
            raise EcadError(f"--steps: expected {expected}, found {self.steps!r}")
        return tuple(found)


@dataclass(frozen=True)
class AlgorithmOptions:
    """The flags that say how the search proceeds and when it ends."""

    mode: Annotated[str, typer.Option(help="fast, or paper: the search as published.")] = "fast"
    population_size: Annotated[
        int | None, typer.Option(min=2, max=MOST, help="Candidates per generation; by default 12, or 72 in mode paper.")
    ] = None
    generations: Annotated[
        int | None, typer.Option(min=1, help="Stop after N generations of the study, the first included.")
    ] = None
    max_minutes: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Stop after N minutes spent on the study.")
    ] = None
    max_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Generate at most N images, those that validate included; the search divides them. Held-out images "
            "are not counted.",
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after N generations in a row that do not improve the front; by default 3 in mode fast, unless "
            "--generations is given.",
        ),
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

    def check_mode(self) -> None:
        """Raise EcadError if the mode is unknown."""
        if self.mode not in ("fast", "paper"):
            raise EcadError(f"--mode {self.mode!r} is unknown: expected fast or paper")

    def check_end(self) -> None:
        """Raise EcadError if the search would never end."""
        limits = self.generations, self.max_minutes, self.max_images, self._patience()
        if all(limit is None for limit in limits):
            raise EcadError(
                "give --generations, --max-images, --max-minutes or --patience: the search has no end of its own"
            )

    def _patience(self) -> int | None:
        if self.patience is None and self.generations is None and self.mode == "fast" and not self.asynchronous:
            return PATIENCE
        return self.patience

    def budget(self, search_images: int | None) -> Budget:
        """When the search ends.

        Args:
            search_images: the part of `max_images` that searches.
        """
        from ecad.genetic.budget import Budget

        seconds = None if self.max_minutes is None else 60 * self.max_minutes
        return Budget(self.generations, seconds, search_images, self._patience())

    def initial(self) -> list[CacheSchedule]:
        """The schedules of `initial_dir`."""
        from ecad.schedules.files import load_schedules

        return [] if self.initial_dir is None else [*load_schedules(self.initial_dir).values()]


@dataclass(frozen=True)
class Task:
    """What a search is asked for, from all flags together.

    Args:
        images: what is scored.
        division: how images are divided; None if they are not limited.
        budget: when the searches end.
        algorithm, problem: the flags.
        initial: schedules to start from.
    """

    images: ImageSets
    division: Division | None
    budget: Budget
    algorithm: AlgorithmOptions
    problem: ProblemOptions
    initial: list[CacheSchedule]

    def initial_of(self, setup: SearchSetup) -> list[CacheSchedule]:
        """The first candidates of one search: of several, the schedules of its number of rows."""
        from ecad.genetic.algorithms.spaced_steps import heuristic_schedules

        if self.algorithm.mode == "paper" and not self.initial and not self.algorithm.random_start:
            return heuristic_schedules(setup.problem, self.algorithm.population_size)
        if len(self.problem.numbers_of_steps()) < 2:
            return self.initial
        return [one for one in self.initial if one.num_steps == setup.problem.shape[0]]

    def settings_of(self, setup: SearchSetup, uncached_cost: int) -> SearchSettings:
        """The settings of one search; `uncached_cost` is of the most steps."""
        import numpy as np

        from ecad.genetic.algorithms.surrogate_search import Ingredients
        from ecad.genetic.searches import max_cost
        from ecad.genetic.settings import SearchSettings

        start = [setup.problem.bits(one) for one in self.initial_of(setup)]
        return SearchSettings(
            np.array(start, dtype=bool).reshape(-1, *setup.problem.shape),
            self.algorithm.mode,  # type: ignore[arg-type]
            self.algorithm.population_size,
            self.algorithm.seed,
            max_cost(setup, uncached_cost, self.problem.target_speedup),
            self.problem.min_quality,
            Ingredients(),
            self.algorithm.asynchronous,
        )
