"""Scores folders of images on workers; workers read the images, and the driver writes the scores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ecad.execution import Executor, Job, Task
from ecad.jobs.score import FolderScores, Item, score_batch
from ecad.prompts import Prompt
from ecad.quality.scorers import Scorer, get_scorer
from ecad.quality.video import by_frame


def score_folders_on(
    executor: Executor,
    folders: Mapping[Path, Sequence[Item]],
    output_subpath: Path,
    *,
    again: bool = False,
    delete_after: bool = False,
    batch_size: int = 64,
    progress: Callable[[Iterable[tuple[int, list[float]]], int], Iterable[tuple[int, list[float]]]],
) -> dict[Path, dict[str, object]]:
    """`score_folder` of many folders on workers built by `worker`.

    Args:
        executor: executor of the workers.
        folders: folder -> its images.
        output_subpath: the file to write in each folder.
        again: as for `score_folder`.
        delete_after: as for `score_folder`.
        batch_size: as for `score_folder`.
        progress: wraps the iterable of batches, given their number, for instance in a progress bar.

    Returns:
        folder -> the content of its output.
    """
    facts = executor.facts
    scorer = Scorer(facts["scorer"], facts["version"], facts["compares"], _elsewhere, facts["parts"])
    open_folders = {
        folder: FolderScores(folder, items, scorer, folder / output_subpath, again) for folder, items in folders.items()
    }
    batches = [(folder, batch) for folder, one in open_folders.items() for batch in one.batches(batch_size)]
    left = Counter(folder for folder, _ in batches)
    results = {folder: one.finish(delete_after) for folder, one in open_folders.items() if not left[folder]}
    tasks = (
        Task(f"{batch[0].file} and {len(batch) - 1} more", [_plain(item) for item in batch]) for _, batch in batches
    )
    for place, scores in progress(executor.finish(tasks), len(batches)):
        folder, batch = batches[place]
        open_folders[folder].keep(batch, scores)
        left[folder] -= 1
        if not left[folder]:
            results[folder] = open_folders[folder].finish(delete_after)
    return {folder: results[folder] for folder in folders}


def worker(scorer: str, weights: str | None, device: str, frames: int) -> Job:
    """Load a scorer of videos of `frames` frames; a task is a batch of images in the format of `_plain`."""
    chosen = by_frame(get_scorer(scorer, weights, device), frames)

    def work(task: list[tuple[str, tuple[str, str], str | None]]) -> list[float]:
        items = [
            Item(Path(file), Prompt(*prompt), None if reference is None else Path(reference))
            for file, prompt, reference in task
        ]
        return score_batch(items, chosen)

    facts = {"scorer": chosen.name, "version": chosen.version, "compares": chosen.compares, "parts": dict(chosen.parts)}
    return Job(work, facts)


def _plain(item: Item) -> tuple[str, tuple[str, str], str | None]:
    reference = None if item.reference is None else os.path.abspath(item.reference)
    return os.path.abspath(item.file), (item.prompt.id, item.prompt.text), reference


def _elsewhere(*_: object) -> np.ndarray:
    raise AssertionError("images are scored by the workers")
