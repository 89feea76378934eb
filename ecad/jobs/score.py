"""Scores the images of a folder into a file beside them; an interrupted run resumes."""

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
from typing import TypedDict, TypeGuard

import numpy as np

from ecad.errors import EcadError
from ecad.images.files import content_digest, read_image, read_images
from ecad.prompts import Prompt
from ecad.quality.scorers import Scorer
from ecad.utils.files import parse_json, write_atomic
from ecad.utils.versions import SCORER_PARTS

_SEED = re.compile(r"__image_seed[:-](-?\d+)$")


class _Scored(TypedDict):
    digest: str
    prompt_id: str
    score: float


class Row(_Scored, total=False):
    """The score of an image in the output."""

    deleted: bool


@dataclass(frozen=True)
class Item:
    """One image to score: its file, its prompt, and the file of its uncached image if the scorer compares."""

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
    facts: Mapping[str, object] | None = None,
    batch_size: int = 64,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, object]:
    """Score images and write the scores; images that an earlier run scored are skipped.

    `total_score` is the mean over prompts of the mean over their images, so that every prompt has the same weight.

    Args:
        folder: names of images in the output are relative to this folder.
        items: the images.
        scorer: the scorer.
        output: the file to write, `{"total_score", "avg_by_prompt", "score_by_prompt_id", ...}`.
        again: whether to score images again that the output already has.
        delete_after: whether to delete each image after its score is written.
        facts: further entries of the output.
        batch_size: images per batch.
        progress: wraps the iterable of batches, for instance in a progress bar.

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
    """The scores of a folder's images, written to a journal as they arrive.

    Args:
        folder: as for `score_folder`.
        items: as for `score_folder`.
        scorer: as for `score_folder`; only its facts are used.
        output: as for `score_folder`.
        again: as for `score_folder`.

    Raises:
        EcadError: an image cannot be read, or the output is of another scorer.
    """

    def __init__(self, folder: Path, items: Sequence[Item], scorer: Scorer, output: Path, again: bool = False) -> None:
        self._folder, self._items, self._scorer, self._output = folder, items, scorer, output
        self._journal = output.with_name(f".{output.name}.unfinished")
        self._digests = {item: _digest(item) for item in items}
        self._known = ({} if again else _read_output(output, scorer)) | _read_journal(self._journal, scorer)

    def batches(self, batch_size: int) -> list[list[Item]]:
        """Batches of the images without a score."""
        todo = [i for i in self._items if _known_score(self._known, self._folder, i, self._digests[i]) is None]
        return [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]

    def keep(self, batch: Sequence[Item], scores: Sequence[float]) -> None:
        """Write the scores of a batch to the journal."""
        rows: dict[str, Row] = {
            _name(self._folder, item): {"digest": self._digests[item], "prompt_id": item.prompt.id, "score": score}
            for item, score in zip(batch, scores, strict=True)
        }
        _append(self._journal, self._scorer, rows)
        self._known |= rows

    def finish(self, delete_after: bool = False, facts: Mapping[str, object] | None = None) -> dict[str, object]:
        """Write the output after all images are scored, and return its content."""
        named = {_name(self._folder, item): item for item in self._items}
        kept = {name: row for name, row in self._known.items() if name in named or row.get("deleted")}
        if delete_after:
            kept |= {name: kept[name] | {"deleted": True} for name in named}
        result = {**_summary(kept, self._scorer), **(facts or {}), "images": kept}
        # Piece by piece: the whole text of many images would dominate the memory.
        write_atomic(self._output, chain(json.JSONEncoder(indent=1).iterencode(result), "\n"))
        self._journal.unlink(missing_ok=True)
        if delete_after:
            for item in self._items:
                item.file.unlink(missing_ok=True)
        return result


def is_foreign(output: Path) -> bool:
    """Whether another program wrote a score file, without the names of the images and the scorer."""
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
                raise EcadError(
                    f"{item.file}: the image is {image.shape[1]}×{image.shape[0]}, its uncached image {item.reference} "
                    f"is {reference.shape[1]}×{reference.shape[0]}; both must have the same size"
                )
    scores = scorer.score(images, [item.prompt.text for item in batch], references)
    for item, score in zip(batch, scores, strict=True):
        if not np.isfinite(score):
            raise EcadError(f"{item.file}: {scorer.name} gave the score {score}; check this image")
    return [float(score) for score in scores]


def _summary(rows: dict[str, Row], scorer: Scorer) -> dict[str, object]:
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
        **scorer.facts,
        "num_images": len(rows),
    }


def _known_score(known: dict[str, Row], folder: Path, item: Item, digest: str) -> float | None:
    row = known.get(_name(folder, item))
    return None if row is None or row["digest"] != digest else row["score"]


def _name(folder: Path, item: Item) -> str:
    return item.file.relative_to(folder).as_posix()


def _digest(item: Item) -> str:
    """A key of the image, its prompt and its reference."""
    digest = hashlib.sha256(json.dumps([item.prompt.id, item.prompt.text]).encode())
    for file in (item.file, item.reference):
        if file is not None:
            digest.update(content_digest(file))
    return digest.hexdigest()[:32]


def _read_output(output: Path, scorer: Scorer) -> dict[str, Row]:
    if not output.exists():
        return {}
    found = _load(output)
    if not _is_of(found, scorer):
        expected, kept = _described(scorer.facts), _described(found)
        raise EcadError(
            f"{output}: this file has scores of {kept}, not of {expected}; write to another file "
            "(`output_subpath`), or set `rescore_existing`"
        )
    rows = found.get("images")
    if not _are_rows(rows):
        raise EcadError(f"{output}: the scores of the images are malformed; delete this file")
    return dict(rows)


def _is_of(found: Mapping[str, object], scorer: Scorer) -> bool:
    """Whether a file's scores are a scorer's; earlier releases did not write its parts."""
    return all(found.get(key, None if key != SCORER_PARTS else facts) == facts for key, facts in scorer.facts.items())


def _described(facts: Mapping[str, object]) -> str:
    parts = facts.get(SCORER_PARTS)
    told = [f"{name} {value}" for name, value in parts.items()] if isinstance(parts, dict) else []
    return ", ".join([f"{facts.get('scorer')} {facts.get('scorer_version')}".strip(), *told])


def _load(output: Path) -> dict[str, object]:
    try:
        found = parse_json(output.read_bytes())
    except (OSError, ValueError) as error:
        raise EcadError(f"{output}: cannot read this file of scores: {error}; delete it") from error
    if not isinstance(found, dict) or "total_score" not in found:
        raise EcadError(f"{output}: this is no file of scores; write to another file (`output_subpath`)")
    return found


def _read_journal(journal: Path, scorer: Scorer) -> dict[str, Row]:
    """The scores of an interrupted run: complete lines of this scorer."""
    rows: dict[str, Row] = {}
    for line in journal.read_bytes().split(b"\n")[:-1] if journal.exists() else ():
        try:
            entry = parse_json(line)
            found, is_ours = entry["rows"], _is_of(entry, scorer)
        except (ValueError, KeyError, TypeError):
            continue
        if is_ours and _are_rows(found):
            rows |= found
    return rows


def _are_rows(found: object) -> TypeGuard[dict[str, Row]]:
    """Whether a value from a file has the format of `FolderScores.keep`: image -> digest, prompt and score."""
    return isinstance(found, dict) and all(
        isinstance(row, dict)
        and isinstance(row.get("digest"), str)
        and isinstance(row.get("prompt_id"), str)
        and type(row.get("score")) in (int, float)
        and math.isfinite(row["score"])
        for row in found.values()
    )


def _append(journal: Path, scorer: Scorer, rows: dict[str, Row]) -> None:
    line = json.dumps({**scorer.facts, "rows": rows})
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with open(journal, "a", encoding="utf-8") as stream:
            # The line break first: a kill may have cut the previous line.
            stream.write(f"\n{line}\n")
    except OSError as error:
        raise EcadError(f"{journal}: cannot write this file: {error.strerror}") from error
