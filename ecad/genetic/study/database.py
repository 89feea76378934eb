"""The SQLite file of a study: its tables, how it is opened, and its errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ecad.errors import EcadError
from ecad.genetic.study.layout import DATABASE

SCHEMA_VERSION = 1
_APPLICATION = int.from_bytes(b"ecad", "big")
# `candidates` holds what the algorithm proposed. Scores belong to `plans`: several candidates may have one plan.
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
# Newer than the schema's version: a study without these tables gets them when it is next written.
_NEWER = """
CREATE TABLE IF NOT EXISTS failures (
    plan INTEGER NOT NULL, item INTEGER NOT NULL, tries INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (plan, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scorers (name TEXT PRIMARY KEY, facts TEXT NOT NULL)
"""


def prepare(connection: sqlite3.Connection, name: str) -> None:
    """Check a file that will be written, and create its tables where they are missing.

    Raises:
        EcadError: the file is of another ecad.
        sqlite3.Error: it is damaged, or no study.
    """
    created = is_created(connection, name)
    [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))
    # A kill loses nothing that is written ahead; only a power cut could lose the last seconds.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    with transaction(connection, name):
        if not created:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
        for statement in _NEWER.split(";\n"):
            connection.execute(statement)


def is_created(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the study's tables exist; False in an empty file.

    Raises:
        EcadError: the file is of another ecad.
        sqlite3.Error: it is no study.
    """
    application, version = (
        connection.execute(f"PRAGMA {field}").fetchone()[0] for field in ("application_id", "user_version")
    )
    if (application, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        return False
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("not a file of ecad")
    if version != SCHEMA_VERSION:
        raise EcadError(
            f"{name}: the study was written by another ecad: expected schema {SCHEMA_VERSION}, "
            f"found {version}; use the ecad that wrote it"
        )
    return True


@contextmanager
def transaction(connection: sqlite3.Connection, name: str) -> Iterator[sqlite3.Connection]:
    """Commit everything that is written within the context, or nothing."""
    with study_errors(name):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def study_errors(name: str) -> Iterator[None]:
    """Turn SQLite's errors into one line about the study."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake in this package
    except sqlite3.OperationalError as error:
        raise EcadError(f"{name}: the study cannot be used: {DATABASE}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise EcadError(
            f"{name}: the study is damaged: {DATABASE}: {error}; restore it from a copy or use another folder"
        ) from error
