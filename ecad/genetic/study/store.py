"""What a study holds, in one SQLite file: settings, candidates, and the score of every image ever made.

Everything is written as soon as it is known, in transactions, so a killed search loses only the batch in flight. One
process may write a study while any number read it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.study.database import is_created, prepare, study_errors, transaction
from ecad.genetic.study.difference import first_difference
from ecad.genetic.study.layout import DATABASE, FRONT, LOCK
from ecad.schedules.plan_key import key_without_sites
from ecad.utils.files import locked, parse_json
from ecad.utils.versions import PARTS, SCORER_PARTS, without_parts

if TYPE_CHECKING:
    from ecad.execution import Failure
    from ecad.genetic.study.items import Item


# The rows of `plans` and `items` that a key of `_add_keys` stands for.
_OF_KEY = "plans, items WHERE bits = ? AND prompt_id = ? AND prompt = ? AND seed = ? AND scorer = ?"


class CandidateRow(NamedTuple):
    """A stored candidate; `bits` are packed, `quality` is None until it is evaluated."""

    generation: int
    number: int
    bits: bytes
    cost: int
    quality: float | None


class GenerationRow(NamedTuple):
    """A stored generation: the images made and the seconds spent in it so far."""

    number: int
    images: int
    seconds: float


class Store:
    """An open study file. Use `Store.open` to write and `Store.read` to read; close it, or use it in a `with` block."""

    def __init__(self, name: str, connection: sqlite3.Connection, lock: ExitStack | None = None) -> None:
        self.name = name
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None) -> Store:
        """Open a study for writing, or create one.

        Args:
            folder: the study's folder; None for a study in memory.

        Raises:
            EcadError: another process writes this study, or it is damaged, of a newer ecad, or cannot be written.
        """
        if folder is None:
            store = cls("study", sqlite3.connect(":memory:", isolation_level=None))
            prepare(store._connection, store.name)
            return store
        path = Path(folder)
        name = os.fspath(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EcadError(f"{name}: cannot make this study folder: {error.strerror}") from error
        with ExitStack() as undo, study_errors(name):
            undo.enter_context(
                locked(
                    path / LOCK,
                    f"{name}: another process is searching this study; wait for it, stop it, or use another folder",
                )
            )
            for folder in (path, path / FRONT, *path.glob("gen_*/candidates")):
                for temporary in folder.glob(".*.tmp"):  # left by a killed search
                    temporary.unlink(missing_ok=True)
            connection = sqlite3.connect(path / DATABASE, isolation_level=None, timeout=30)
            undo.enter_context(closing(connection))
            store = cls(name, connection, undo)
            prepare(connection, name)
            store._lock = undo.pop_all()
        return store

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a study for reading, also while it is written.

        Raises:
            EcadError: there is no study, or it is damaged or of a newer ecad.
        """
        name, path = os.fspath(folder), Path(folder) / DATABASE
        if not path.is_file():
            below = sorted(file.parent.name for file in Path(folder).glob(f"*/{DATABASE}"))
            advice = f"name one of {', '.join(below[:5])} in it" if below else "run a search first"
            raise EcadError(f"{name}: no study here: expected a file {DATABASE}, found none; {advice}")
        with study_errors(name):
            store = cls(name, sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30))
            try:
                if not is_created(store._connection, name):
                    raise EcadError(f"{name}: the study is empty: its search was stopped before it began; run it again")
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Close the files and release the lock."""
        if self._lock is not None:
            # A closed study is one plain file, which can be copied, and read on read-only disks. This fails while
            # others read the study, which then keeps its write-ahead log.
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ensure_settings(self, settings: Mapping[str, object], versions: Mapping[str, str]) -> None:
        """Store the settings of a new study, or check that those of an existing one match.

        Args:
            settings: JSON values.
            versions: package -> version; added to those of earlier searches of the study.

        Raises:
            EcadError: a setting differs from the study's; the message names it.
        """
        given = json.loads(json.dumps(dict(settings)))
        kept = self.settings()
        for key in (PARTS, SCORER_PARTS):
            if kept and key not in kept.get("evaluator", {}):  # begun by a release that named fewer
                given = without_parts(given, key)
        if kept and (difference := first_difference(kept, given)):
            raise EcadError(f"{self.name}: the study has other settings: {difference}; use those or another folder")
        with self._transaction():
            if not kept:
                rows = [(name, json.dumps(value)) for name, value in given.items()]
                self._connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            self._connection.executemany("INSERT OR IGNORE INTO versions VALUES (?, ?)", sorted(versions.items()))

    def ensure_scorer(self, scorer: str, settings: Mapping[str, object]) -> None:
        """Store what the scores of a scorer depend on beside its name, or check that it is what is stored.

        Args:
            scorer: its name in the study.
            settings: of its evaluator.

        Raises:
            EcadError: the study's scores of that name are of other weights.
        """
        given = json.loads(json.dumps({key: settings[key] for key in ("scorer", SCORER_PARTS) if key in settings}))
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO scorers VALUES (?, ?)", (scorer, json.dumps(given)))
        [kept] = self._rows("SELECT facts FROM scorers WHERE name = ?", (scorer,), make=parse_json)
        if difference := first_difference(kept, given):
            raise EcadError(f"{self.name}: the study's scores by {scorer} are of another one: {difference}")

    def settings(self) -> dict[str, Any]:
        """The settings, JSON values; empty in a new study."""
        return dict(self._rows("SELECT name, value FROM settings", make=lambda name, value: (name, parse_json(value))))

    def versions(self) -> dict[str, list[str]]:
        """Package -> all versions of it that searched the study."""
        found: dict[str, list[str]] = {}
        for package, version in self._rows("SELECT package, version FROM versions ORDER BY rowid"):
            found.setdefault(package, []).append(version)
        return found

    def scores(self, plan: bytes, items: Sequence[Item], scorer: str) -> np.ndarray:
        """The scores of a plan's images, float64 (items,); NaN where there is none."""
        rows = self._rows(
            "SELECT prompt_id, prompt, seed, score FROM scores JOIN items ON item = items.id"
            " WHERE plan IN (SELECT id FROM plans WHERE bits IN (?, ?)) AND scorer = ?",
            (plan, key_without_sites(plan), scorer),
            make=lambda prompt_id, prompt, seed, score: ((prompt_id, prompt, seed), float(score)),
        )
        known = dict(rows)
        found = [known.get((item.prompt.id, item.prompt.text, item.seed), np.nan) for item in items]
        return np.array(found, dtype=np.float64)

    def items(self, scorer: str) -> list[tuple[str, str, int]]:
        """The prompt (id and text) and seed of every image with a score of a scorer, in order of their first score."""
        return self._rows("SELECT prompt_id, prompt, seed FROM items WHERE scorer = ? ORDER BY id", (scorer,))

    def scorers(self) -> list[str]:
        """The names of all scorers of which there are scores, in order of their first score."""
        return [name for (name,) in self._rows("SELECT scorer FROM items GROUP BY scorer ORDER BY MIN(id)")]

    def add_scores(
        self, plan: bytes, items: Sequence[Item], scorer: str, scores: np.ndarray, generation: int | None = None
    ) -> None:
        """Store the scores, float64 (items,), of a plan's images, and count the images for a generation, if given."""
        with self._transaction() as connection:
            keys = self._add_keys(plan, items, scorer)
            connection.executemany(
                f"INSERT OR IGNORE INTO scores SELECT plans.id, items.id, ? FROM {_OF_KEY}",
                [(score, *key) for score, key in zip(scores.tolist(), keys, strict=True)],
            )
            if generation is not None:
                counted = (len(items), generation)
                connection.execute("UPDATE generations SET images = images + ? WHERE number = ?", counted)

    def failures(self, plan: bytes, items: Sequence[Item], scorer: str) -> list[str | None]:
        """For each of a plan's images the reason why it was given up, None if it was not."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'failures'"):
            return [None] * len(items)
        rows = self._rows(
            "SELECT prompt_id, prompt, seed, reason FROM failures JOIN items ON item = items.id"
            " WHERE plan IN (SELECT id FROM plans WHERE bits IN (?, ?)) AND scorer = ?",
            (plan, key_without_sites(plan), scorer),
            make=lambda prompt_id, prompt, seed, reason: ((prompt_id, prompt, seed), str(reason)),
        )
        known = dict(rows)
        return [known.get((item.prompt.id, item.prompt.text, item.seed)) for item in items]

    def add_failures(self, plan: bytes, items: Sequence[Item], scorer: str, failure: Failure) -> None:
        """Store that a plan's images were given up, and why."""
        with self._transaction() as connection:
            keys = self._add_keys(plan, items, scorer)
            connection.executemany(
                f"INSERT OR IGNORE INTO failures SELECT plans.id, items.id, ?, ? FROM {_OF_KEY}",
                [(failure.tries, failure.reason, *key) for key in keys],
            )

    def begin(
        self, generation: int, bits: np.ndarray, cost: np.ndarray, random_state: Mapping[str, object]
    ) -> np.ndarray:
        """Store a generation's candidates, or check that they match the stored ones.

        Args:
            generation: 0 for the initial population.
            bits: bool (n, steps, sites).
            cost: int (n,).
            random_state: of the algorithm after it proposed them; JSON values.

        Returns:
            the stored qualities, float64 (n,), NaN where there is none.

        Raises:
            EcadError: the study holds other candidates.
        """
        packed = [np.packbits(candidate).tobytes() for candidate in bits]
        state = json.dumps(random_state)
        rows = self.candidates(generation)
        if not rows:
            with self._transaction() as connection:
                connection.execute("INSERT INTO generations (number, random_state) VALUES (?, ?)", (generation, state))
                connection.executemany(
                    "INSERT INTO candidates VALUES (?, ?, ?, ?, NULL)",
                    [(generation, i, *row) for i, row in enumerate(zip(packed, cost.tolist(), strict=True))],
                )
            return np.full(len(bits), np.nan)
        states = self._rows("SELECT random_state FROM generations WHERE number = ?", (generation,))
        same = [(row.bits, row.cost) for row in rows] == list(zip(packed, cost.tolist(), strict=True))
        if states != [(state,)] or not same:
            versions = "; ".join(f"{package} {', '.join(found)}" for package, found in self.versions().items())
            raise EcadError(
                f"{self.name}: generation {generation} has other candidates than when the study began ({versions}); "
                "resume with the versions it began with, or use another folder"
            )
        return np.array([np.nan if row.quality is None else row.quality for row in rows])

    def complete(self, generation: int, number: int, quality: float, seconds: float) -> None:
        """Store a candidate's quality, and the seconds since the last one was complete."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE candidates SET quality = ? WHERE generation = ? AND number = ?", (quality, generation, number)
            )
            spent = (seconds, generation)
            connection.execute("UPDATE generations SET seconds = seconds + ? WHERE number = ?", spent)

    def candidates(self, generation: int | None = None) -> list[CandidateRow]:
        """The candidates of one generation, or of all, in order."""
        columns = "SELECT generation, number, bits, cost, quality FROM candidates"
        order = "ORDER BY generation, number"
        if generation is None:
            return self._rows(f"{columns} {order}", make=_candidate_row)
        return self._rows(f"{columns} WHERE generation = ? {order}", (generation,), make=_candidate_row)

    def generations(self) -> list[GenerationRow]:
        """All generations in order."""
        query = "SELECT number, images, seconds FROM generations ORDER BY number"
        return self._rows(query, make=lambda *row: GenerationRow(int(row[0]), int(row[1]), float(row[2])))

    def _rows(self, query: str, values: tuple[Any, ...] = (), make: Callable[..., Any] = lambda *row: row) -> list[Any]:
        with study_errors(self.name):
            rows = self._connection.execute(query, values).fetchall()
            try:
                return [make(*row) for row in rows]
            except (TypeError, ValueError) as error:  # SQLite does not enforce column types
                raise sqlite3.DatabaseError(str(error)) from error

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._connection, self.name)

    def _add_keys(self, plan: bytes, items: Sequence[Item], scorer: str) -> list[tuple[object, ...]]:
        """Insert a plan and its items where they are missing; returns for each item the values that identify both."""
        keys = [(item.prompt.id, item.prompt.text, item.seed, scorer) for item in items]
        self._connection.execute("INSERT OR IGNORE INTO plans (bits) VALUES (?)", (plan,))
        self._connection.executemany(
            "INSERT OR IGNORE INTO items (prompt_id, prompt, seed, scorer) VALUES (?, ?, ?, ?)", keys
        )
        return [(plan, *key) for key in keys]


def _candidate_row(generation: int, number: int, bits: bytes, cost: int, quality: float | None) -> CandidateRow:
    return CandidateRow(
        int(generation), int(number), memoryview(bits).tobytes(), int(cost), None if quality is None else float(quality)
    )
