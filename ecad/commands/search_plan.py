"""Lines that `ecad optimize --dry-run` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ecad.commands.main import finish

if TYPE_CHECKING:
    from ecad.commands.search_options import Task
    from ecad.genetic.dry_run import Planned
    from ecad.genetic.evaluation.workers import SearchSetup


def show_plan(setups: Sequence[SearchSetup], task: Task, as_json: bool) -> None:
    """Print how many images a search makes, how long that takes, and how much memory it needs.

    Args:
        setups: one per number of steps.
        task: what is asked for.
        as_json: print JSON.
    """
    from ecad.genetic.dry_run import plan_search
    from ecad.genetic.searches import part_of

    whole, budget = max(setup.problem.uncached_cost for setup in setups), part_of(task.budget, len(setups))
    plans = [plan_search(setup, task.settings_of(setup, whole), budget) for setup in setups]
    searching = [_searched_images(task, plan) for plan in plans]
    can_fit = all(setup.fit is not None for setup in setups)
    validation, held_out = _selection_images(task, can_fit), _held_out_images(task)
    slowest = max(plan.seconds_per_image for plan in plans)
    seconds = [
        images * plan.seconds_per_image for images, plan in zip(searching, plans, strict=True) if images is not None
    ]
    ends = all(images is not None for images in searching)
    result: dict[str, object] = {
        "search_images": sum(filter(None, searching)) if ends else None,
        "images_of_first_two_generations": sum(_each(task) * plan.first for plan in plans),
        "images_per_later_generation": sum(_each(task) * plan.later for plan in plans),
        "validation_images": validation,
        "held_out_images": held_out,
        "seconds_per_image": [plan.seconds_per_image for plan in plans],
        "minutes": (sum(seconds) + slowest * (validation + held_out)) / 60 if ends else None,
        "kept_bytes_per_image": max((plan.kept_bytes for plan in plans if plan.kept_bytes is not None), default=None),
        "process_bytes": max((plan.process_bytes for plan in plans if plan.process_bytes is not None), default=None),
    }
    unknown = "not known on workers" if setups[0].executor else "not known on this system"
    finish(result, "\n".join(_lines(result, task, unknown)), as_json)


def _each(task: Task) -> int:
    """Images of a candidate."""
    return len(task.images.search.prompts) * len(task.images.search.seeds)


def _searched_images(task: Task, plan: Planned) -> int | None:
    return None if plan.candidates is None else _each(task) * plan.candidates


def _selection_images(task: Task, can_fit: bool) -> int:
    """At most: of the validation, and of two batches along which each fitted schedule is fitted."""
    from ecad.genetic.selection import most_finalists, most_fits, validation_images

    rounds, division = task.images.validation, task.division
    if not rounds or task.algorithm.mode != "fast":
        return 0
    count = most_finalists(None if division is None else division.finalists)
    fitted = most_fits(count) if can_fit else 0
    found = validation_images(count, fitted, len(rounds[0].prompts), len(rounds))
    found = found if division is None else min(found, division.validation_images)
    return found + _each(task) * (1 + 2 * fitted)


def _held_out_images(task: Task) -> int:
    """At most: those of every schedule that may be exported, and the uncached ones."""
    from ecad.genetic.selection import most_finalists
    from ecad.genetic.study.export import MAX_EXPORTED

    validated = bool(task.images.validation) and task.algorithm.mode == "fast"
    count = most_finalists(None if task.division is None else task.division.finalists) if validated else MAX_EXPORTED
    return sum((1 + count) * len(one.prompts) * len(one.seeds) for one in task.images.held_out)


def _lines(result: dict[str, Any], task: Task, unknown: str) -> list[str]:
    searched = result["search_images"]
    images = (
        f"about {result['images_of_first_two_generations']} for the first two generations, "
        f"{result['images_per_later_generation']} for each later one"
    )
    if searched is None:
        ends = f"until {task.budget.patience} generations in a row do not improve the front"
        lines = [f"images: {images}, {ends}"]
    else:
        lines = [f"images: at most {searched} to search"]
    lines[0] += (
        f"; then at most {result['validation_images']} to validate and {result['held_out_images']} held-out ones"
    )
    each = ", ".join(f"{seconds:.2f}" for seconds in result["seconds_per_image"])
    time = f"{each} s per uncached image"
    if result["minutes"] is None:
        lines.append(f"time: {time}; cached ones take less")
    else:
        lines.append(f"time: at most {result['minutes']:.1f} minutes, from {time}; cached ones take less")
    kept, process = result["kept_bytes_per_image"], result["process_bytes"]
    told = [] if process is None else [f"{process / 1e9:.2f} GB at the peak of an uncached batch"]
    if kept is not None:
        told.append(f"caches of up to {kept / 1e6:.1f} MB per image in 16-bit numbers")
    lines.append(f"memory: {', and '.join(told) or unknown}")
    return lines
