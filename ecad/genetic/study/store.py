"""What a study remembers, in one SQLite file: settings, candidates, and the score of every image ever made.

Everything is written as soon as it is known, in transactions, so that a killed search loses the batch in flight.
One process may write a study, any number may read it meanwhile.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.study.difference import first_difference
from ecad.genetic.study.layout import DATABASE, LOCK
from ecad.schedules.plan import key_without_sites
from ecad.utils.files import locked, parse_json
from ecad.utils.versions import PARTS, without_parts

if TYPE_CHECKING:
    from ecad.execution import Failure
    from ecad.genetic.study.items import Item


SCHEMA_VERSION = 1
_APPLICATION = int.from_bytes(b"ecad", "big")
# Candidates are what the algorithm proposed, plans what scores belong to: many candidates may have one plan.
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE versions (package TEXT, version TEXT, PRIMARY KEY (package, version));
CREATE TABLE items (
    id INTEGER PRIMARY KEY, prompt_id TEXT NOT NULL, prompt TEXT NOT NULL, seed INTEGER NOT NULL, scorer TEXT NOT NULL,
    UNIQUE (prompt_id, prompt, seed, scorer)
);
CREATE TABLE plans (id INTEGER PRIMARY KEY, bits BLOB NOT NULL UNIQUE);
CREATE TABLE scores (
    plan INTEGER NOT NULL, item INTEGER NOT NULL, score REAL NOT NULL, PRIMARY KEY (plan, item)
) WITHOUT ROWID;
CREATE TABLE generations (
    number INTEGER PRIMARY KEY, random_state TEXT NOT NULL,
    images INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0
);
CREATE TABLE candidates (
    generation INTEGER NOT NULL, number INTEGER NOT NULL, bits BLOB NOT NULL, cost INTEGER NOT NULL, quality REAL,
    PRIMARY KEY (generation, number)
) WITHOUT ROWID;
"""
# Younger than the schema's number: a study that has none gets it when it is written again.
_FAILURES = """
CREATE TABLE IF NOT EXISTS failures (
    plan INTEGER NOT NULL, item INTEGER NOT NULL, tries INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (plan, item)
) WITHOUT ROWID
"""
# The rows of `plans` and `items` that a key of `_add_keys` stands for.
_OF_KEY = "plans, items WHERE bits = ? AND prompt_id = ? AND prompt = ? AND seed = ? AND scorer = ?"


class CandidateRow(NamedTuple):
    """A candidate as stored; `bits` packed, `quality` None while it has not been evaluated."""

    generation: int
    number: int
    bits: bytes
    cost: int
    quality: float | None


class GenerationRow(NamedTuple):
    """A generation as stored: the images made and the seconds spent in it so far."""

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
        """Open a study to write in, or make one.

        Args:
            folder: the study's folder; None for one that lives in memory.

        Raises:
            EcadError: another process writes this study, or it is damaged, of a newer ecad, or cannot be written.
        """
        if folder is None:
            store = cls("study", sqlite3.connect(":memory:", isolation_level=None))
            with store._transaction():
                store._make_tables()
                store._connection.execute(_FAILURES)
            return store
        path = Path(folder)
        name = os.fspath(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EcadError(f"{name}: cannot make this study folder: {error.strerror}") from error
        with ExitStack() as undo, _told(name):
            undo.enter_context(
                locked(
                    path / LOCK,
                    f"{name}: another process is searching this study: expected to be the only one; "
                    "wait until it ends, stop it, or use another folder",
                )
            )
            for folder in (path, path / "front", *path.glob("gen_*/candidates")):
                for left in folder.glob(".*.tmp"):  # by a killed search
                    left.unlink(missing_ok=True)
            connection = sqlite3.connect(path / DATABASE, isolation_level=None, timeout=30)
            undo.enter_context(closing(connection))
            store = cls(name, connection, undo)
            store._prepare()
            store._lock = undo.pop_all()
        return store

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a study to read, also while it is written.

        Raises:
            EcadError: there is no study, or it is damaged or of a newer ecad.
        """
        name, path = os.fspath(folder), Path(folder) / DATABASE
        if not path.is_file():
            raise EcadError(f"{name}: no study here: expected a file {DATABASE}, found none; run a search first")
        with _told(name):
            store = cls(name, sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30))
            try:
                if not store._is_made():
                    raise EcadError(f"{name}: the study is empty: its search was stopped before it began; run it again")
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Close the files and let other processes write."""
        if self._lock is not None:
            # At rest a study is one plain file, which can be copied, and read where nothing can be written. Not while
            # others read it: then it stays as it is.
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

    def settle(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Keep the settings of a new study, or hold them against those of an old one.

        Args:
            settings: JSON values.
            versions: package -> version; those of all searches of the study are kept.

        Raises:
            EcadError: a setting is not that of the study; says which, what was expected and what was found.
        """
        given = json.loads(json.dumps(dict(settings)))
        kept = self.settings()
        if kept and PARTS not in kept.get("evaluator", {}):  # begun by a release that named fewer
            given = without_parts(given)
        if kept and (difference := first_difference(kept, given)):
            raise EcadError(f"{self.name}: the study has other settings: {difference}; use those or another folder")
        with self._transaction():
            if not kept:
                rows = [(name, json.dumps(value)) for name, value in given.items()]
                self._connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            self._connection.executemany("INSERT OR IGNORE INTO versions VALUES (?, ?)", sorted(versions.items()))

    def settings(self) -> dict[str, Any]:
        """What `settle` keeps; empty in a new study."""
        return dict(self._rows("SELECT name, value FROM settings", make=lambda name, value: (name, parse_json(value))))

    def versions(self) -> dict[str, list[str]]:
        """Package -> all its versions that worked on the study."""
        found: dict[str, list[str]] = {}
        for package, version in self._rows("SELECT package, version FROM versions ORDER BY rowid"):
            found.setdefault(package, []).append(version)
        return found

    def scores(self, plan: bytes, items: Sequence[Item], scorer: str) -> np.ndarray:
        """The scores of a plan's images: float64 (items,), NaN where there is none yet."""
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
        """The prompt (id and text) and seed of every image that a scorer has judged, in the order they first came."""
        return self._rows("SELECT prompt_id, prompt, seed FROM items WHERE scorer = ? ORDER BY id", (scorer,))

    def add_scores(
        self, plan: bytes, items: Sequence[Item], scorer: str, scores: np.ndarray, generation: int | None = None
    ) -> None:
        """Keep the scores, float64 (items,), of a plan's images, counted as images of a generation."""
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
        """For each of a plan's images why it was given up, None if it was not."""
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
        """Keep that a plan's images were given up, and why."""
        with self._transaction() as connection:
            keys = self._add_keys(plan, items, scorer)
            connection.executemany(
                f"INSERT OR IGNORE INTO failures SELECT plans.id, items.id, ?, ? FROM {_OF_KEY}",
                [(failure.tries, failure.reason, *key) for key in keys],
            )

    def begin(self, generation: int, bits: np.ndarray, cost: np.ndarray, random_state: Mapping[str, Any]) -> np.ndarray:
        """Keep what the algorithm proposes, or hold it against what it proposed when the study got here first.

        Args:
            generation: 0 for the initial population.
            bits: bool (n, steps, sites).
            cost: int (n,).
            random_state: of the algorithm, having proposed; JSON values.

        Returns:
            the qualities that are known, float64 (n,), NaN for the others.

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
                f"{self.name}: generation {generation} comes out otherwise than when the study made it ({versions}): "
                "expected the same candidates; resume with the versions it began with, or use another folder"
            )
        return np.array([np.nan if row.quality is None else row.quality for row in rows])

    def complete(self, generation: int, number: int, quality: float, seconds: float) -> None:
        """Keep a candidate's quality, and the seconds since the last one was complete."""
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
        with _told(self.name):
            rows = self._connection.execute(query, values).fetchall()
            try:
                return [make(*row) for row in rows]
            except (TypeError, ValueError) as error:  # SQLite keeps whatever it is given, and whatever became of it
                raise sqlite3.DatabaseError(str(error)) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _told(self.name):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _add_keys(self, plan: bytes, items: Sequence[Item], scorer: str) -> list[tuple[Any, ...]]:
        """See that a plan and its items are known; gives for each item what finds the two again."""
        keys = [(item.prompt.id, item.prompt.text, item.seed, scorer) for item in items]
        self._connection.execute("INSERT OR IGNORE INTO plans (bits) VALUES (?)", (plan,))
        self._connection.executemany(
            "INSERT OR IGNORE INTO items (prompt_id, prompt, seed, scorer) VALUES (?, ?, ?, ?)", keys
        )
        return [(plan, *key) for key in keys]

    def _prepare(self) -> None:
        made = self._is_made()
        [found] = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        # A kill loses nothing that is written ahead; only a power cut could lose the last seconds.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            if not made:
                self._make_tables()
            self._connection.execute(_FAILURES)

    def _is_made(self) -> bool:
        application, version = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, version) == (0, 0) and not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        if application != _APPLICATION:
            raise sqlite3.DatabaseError("not a file of ecad")
        if version != SCHEMA_VERSION:
            raise EcadError(
                f"{self.name}: the study was written by another ecad: expected schema {SCHEMA_VERSION}, "
                f"found {version}; use the ecad that wrote it"
            )
        return True

    def _make_tables(self) -> None:
        for statement in _SCHEMA.split(";\n"):
            self._connection.execute(statement)


def _candidate_row(generation: int, number: int, bits: bytes, cost: int, quality: float | None) -> CandidateRow:
    return CandidateRow(
        int(generation), int(number), memoryview(bits).tobytes(), int(cost), None if quality is None else float(quality)
    )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say what SQLite finds wrong with a study on one line."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake of ours
    except sqlite3.OperationalError as error:
        raise EcadError(f"{name}: the study cannot be used: {DATABASE}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise EcadError(
            f"{name}: the study is damaged: {DATABASE}: {error}; restore it from a copy or use another folder"
        ) from error
