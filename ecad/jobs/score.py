"""Scores of the images in a folder, kept beside them: what is scored stays scored, whatever interrupts the work."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ecad.errors import EcadError
from ecad.images.files import content_digest, read_image, read_images
from ecad.prompts import Prompt
from ecad.quality.scorers import Scorer
from ecad.utils.files import parse_json, write_atomic

_SEED = re.compile(r"__image_seed[:-](-?\d+)$")


@dataclass(frozen=True)
class Item:
    """One image to score: its file, its prompt, and the file of its uncached image for a scorer that compares."""

    file: Path
    prompt: Prompt
    reference: Path | None = None


def score_folder(
    folder: Path,
    items: Sequence[Item],
    scorer: Scorer,
    output: Path,
    *,
    again: bool = False,
    delete_after: bool = False,
    facts: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Score images and write what was found; what an earlier run scored is not scored again.

    `total_score` is the mean over prompts of the mean over their images, so that each prompt counts the same.

    Args:
        folder: the images' names in the output are relative to it.
        items: the images.
        scorer: gives each a number.
        output: the file to write, `{"total_score", "avg_by_prompt", "score_by_prompt_id", ...}`.
        again: score also what the output already holds.
        delete_after: remove each scored image once its score is safe.
        facts: what else the output shall say.
        batch_size: images read and scored together.
        progress: what to draw the batches through, for instance a progress bar.

    Returns:
        the content of the output.

    Raises:
        EcadError: an image cannot be read, a reference has another size, or the output is of another scorer.
    """
    scores = FolderScores(folder, items, scorer, output, again)
    batches = scores.batches(batch_size)
    for place in progress(range(len(batches))) if batches else ():
        scores.keep(batches[place], score_batch(batches[place], scorer))
    return scores.finish(delete_after, facts)


class FolderScores:
    """The scores of a folder's images while they come in, safe from interruptions.

    Args:
        folder, items, scorer, output, again: as for `score_folder`; of the scorer name and version only.

    Raises:
        EcadError: an image cannot be read, or the output is of another scorer.
    """

    def __init__(self, folder: Path, items: Sequence[Item], scorer: Scorer, output: Path, again: bool = False) -> None:
        self._folder, self._items, self._scorer, self._output = folder, items, scorer, output
        self._journal = output.with_name(f".{output.name}.unfinished")
        self._digests = {item: _digest(item) for item in items}
        self._known = ({} if again else _read_output(output, scorer)) | _read_journal(self._journal, scorer)

    def batches(self, batch_size: int) -> list[list[Item]]:
        """What is still to be scored."""
        todo = [i for i in self._items if _known_score(self._known, self._folder, i, self._digests[i]) is None]
        return [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]

    def keep(self, batch: Sequence[Item], scores: Sequence[float]) -> None:
        """Write down the scores of a batch."""
        rows = {
            _name(self._folder, item): {"digest": self._digests[item], "prompt_id": item.prompt.id, "score": score}
            for item, score in zip(batch, scores, strict=True)
        }
        _append(self._journal, self._scorer, rows)
        self._known |= rows

    def finish(self, delete_after: bool = False, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the output when everything is scored, and give its content."""
        named = {_name(self._folder, item): item for item in self._items}
        kept = {name: row for name, row in self._known.items() if name in named or row.get("deleted")}
        if delete_after:
            kept |= {name: kept[name] | {"deleted": True} for name in named}
        result = {**_summary(kept, self._scorer), **(facts or {}), "images": kept}
        # Piece by piece: of many images, the whole text would take more memory than all else.
        write_atomic(self._output, chain(json.JSONEncoder(indent=1).iterencode(result), "\n"))
        self._journal.unlink(missing_ok=True)
        if delete_after:
            for item in self._items:
                item.file.unlink(missing_ok=True)
        return result


def is_foreign(output: Path) -> bool:
    """Whether a score file was written by another program, which did not say what was scored with what."""
    return output.exists() and "scorer" not in _load(output)


def score_batch(batch: Sequence[Item], scorer: Scorer) -> list[float]:
    """The scores of some images, read from their files.

    Raises:
        EcadError: an image cannot be read, a reference has another size, or a score is no finite number.
    """
    images = read_images([item.file for item in batch])
    references = None
    if scorer.compares:
        references = [read_image(item.reference) for item in batch if item.reference is not None]
        for item, image, reference in zip(batch, images, references, strict=True):
            if image.shape != reference.shape:
                raise EcadError(f"{item.file}: expected the size of {item.reference}, found {image.shape[:2]}")
    scores = scorer.score(images, [item.prompt.text for item in batch], references)
    for item, score in zip(batch, scores, strict=True):
        if not np.isfinite(score):
            raise EcadError(f"{item.file}: {scorer.name} gave {score}, which is no score; look at this image")
    return [float(score) for score in scores]


def _summary(rows: dict[str, dict[str, Any]], scorer: Scorer) -> dict[str, Any]:
    by_prompt: dict[str, dict[str, float]] = defaultdict(dict)
    for name, row in sorted(rows.items()):
        seed = _SEED.search(Path(name).stem)
        key = seed[1] if seed and seed[1] not in by_prompt[row["prompt_id"]] else name
        by_prompt[row["prompt_id"]][key] = row["score"]
    averages = {prompt: float(np.mean(list(scores.values()))) for prompt, scores in by_prompt.items()}
    return {
        "total_score": float(np.mean(list(averages.values()))),
        "avg_by_prompt": averages,
        "score_by_prompt_id": dict(by_prompt),
        "scorer": scorer.name,
        "scorer_version": scorer.version,
        "num_images": len(rows),
    }


def _known_score(known: dict[str, dict[str, Any]], folder: Path, item: Item, digest: str) -> float | None:
    row = known.get(_name(folder, item))
    return None if row is None or row["digest"] != digest else row["score"]


def _name(folder: Path, item: Item) -> str:
    return item.file.relative_to(folder).as_posix()


def _digest(item: Item) -> str:
    """Differs where the image, its prompt or its reference differ."""
    digest = hashlib.sha256(json.dumps([item.prompt.id, item.prompt.text]).encode())
    for file in (item.file, item.reference):
        if file is not None:
            digest.update(content_digest(file))
    return digest.hexdigest()[:32]


def _read_output(output: Path, scorer: Scorer) -> dict[str, dict[str, Any]]:
    if not output.exists():
        return {}
    found = _load(output)
    if (found.get("scorer"), found.get("scorer_version")) != (scorer.name, scorer.version):
        raise EcadError(
            f"{output}: expected scores of {scorer.name} {scorer.version}, found those of {found.get('scorer')} "
            f"{found.get('scorer_version')}; write to another file (`output_subpath`), or set `rescore_existing`"
        )
    rows = found.get("images")
    if not _are_rows(rows):
        raise EcadError(f"{output}: expected a score for each image, found something else; remove it")
    return dict(rows)


def _load(output: Path) -> dict[str, Any]:
    try:
        found = parse_json(output.read_bytes())
    except (OSError, ValueError) as error:
        raise EcadError(f"{output}: expected a file of scores, but: {error}; remove it") from error
    if not isinstance(found, dict) or "total_score" not in found:
        raise EcadError(f"{output}: expected a file of scores, found another one; write to another file with -o")
    return found


def _read_journal(journal: Path, scorer: Scorer) -> dict[str, dict[str, Any]]:
    """What an interrupted run has scored: whole lines only, and only of this scorer."""
    rows: dict[str, dict[str, Any]] = {}
    for line in journal.read_bytes().split(b"\n")[:-1] if journal.exists() else ():
        try:
            entry = parse_json(line)
            found, version = entry["rows"], (entry["scorer"], entry["version"])
        except (ValueError, KeyError, TypeError):
            continue
        if version == (scorer.name, scorer.version) and _are_rows(found):
            rows |= found
    return rows


def _are_rows(found: Any) -> TypeGuard[dict[str, dict[str, Any]]]:
    """Whether something read from a file is what `FolderScores.keep` wrote: image -> digest, prompt and score."""
    return isinstance(found, dict) and all(
        isinstance(row, dict)
        and isinstance(row.get("digest"), str)
        and isinstance(row.get("prompt_id"), str)
        and type(row.get("score")) in (int, float)
        and math.isfinite(row["score"])
        for row in found.values()
    )


def _append(journal: Path, scorer: Scorer, rows: dict[str, dict[str, Any]]) -> None:
    line = json.dumps({"scorer": scorer.name, "version": scorer.version, "rows": rows})
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with open(journal, "a", encoding="utf-8") as stream:
            # On a line of its own even if a kill tore the one before.
            stream.write(f"\n{line}\n")
    except OSError as error:
        raise EcadError(f"{journal}: cannot write this file: {error.strerror}") from error
