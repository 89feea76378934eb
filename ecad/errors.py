"""A user's mistakes: each is an `EcadError` whose message fits one line and says how to mend it."""

from __future__ import annotations

import os

_LONGEST = 100


class EcadError(Exception):
    r"""Something the user asked for cannot be done; commands print it on one line and exit with code 2.

    >>> print(EcadError("a\x1b[2J\nb"))
    a\x1b[2J b
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split("\n")))


class EcadWarning(EcadError, UserWarning):
    """A schedule runs under other conditions than it was made for. `warnings.simplefilter("error", EcadWarning)` makes
    it an error like any other.
    """


class NotFiniteError(EcadError):
    """Images that are no numbers (NaN or infinite) came out of a model."""


class ScheduleError(EcadError):
    """A cache schedule is malformed or does not fit; says where, what was expected and what was found.

    Args:
        problem: one clause that names the mistake.
        file: the file it was read from.
        step: the step's key, as written in the file.
        block: the block's key.
        component: the component's key.
        expected: what should stand there.
        found: what stands there.

    >>> print(ScheduleError("not a bit", step="003", block="5", component="ff", expected="true or false", found="1"))
    step 003, block 5, component ff: not a bit: expected true or false, found 1
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | os.PathLike[str] | None = None,
        step: str | None = None,
        block: str | None = None,
        component: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.file = None if file is None else os.fspath(file)
        self.step = step
        self.block = block
        self.component = component
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        place = _pairs(step=self.step, block=self.block, component=self.component)
        values = _pairs(expected=self.expected, found=self.found)
        file = None if self.file is None else printable(self.file)
        return ": ".join(part for part in (file, place, printable(self.problem), values) if part)


def _pairs(**fields: str | None) -> str:
    return ", ".join(f"{name} {_clipped(printable(text))}" for name, text in fields.items() if text is not None)


def printable(text: str) -> str:
    """Keep a hostile key or file name from breaking the line or the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
