"""Errors that a user can mend: each is an `EcadError` with a one-line message that names the cause and the remedy."""

from __future__ import annotations

import os

_MAX_LENGTH = 100


class EcadError(ValueError):
    r"""The user asked for something that cannot be done. Commands print the message on one line and exit with code 2.

    >>> print(EcadError("a\x1b[2J\nb"))
    a\x1b[2J b
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split("\n")))


class EcadWarning(EcadError, UserWarning):
    """A schedule runs under conditions that it was not made for.

    `warnings.simplefilter("error", EcadWarning)` turns these warnings into errors.
    """


class OtherResultsError(EcadError):
    """A folder holds results of other prompts or settings.

    Args:
        folder: the folder.
        problem: what it holds, in one clause.
    """

    def __init__(self, folder: str | os.PathLike[str], problem: str) -> None:
        remedy = "choose another folder, or give `overwrite` to replace them"
        super().__init__(f"{os.fspath(folder)}: {problem}; {remedy}")
        self.folder = os.fspath(folder)
        self.problem = problem


class NotFiniteError(EcadError):
    """A model generated images with NaN or infinite values."""


class ScheduleError(EcadError):
    """A cache schedule is malformed or does not fit the model.

    Args:
        problem: what is wrong, in one clause.
        file: the file that holds the schedule.
        step: the step's key, as written in the file.
        block: the block's key.
        component: the component's key.
        expected: the value that would be valid.
        found: the value that was found.
        remedy: what the user can do, in one clause.

    >>> print(ScheduleError("not a bit", step="003", block="5", component="ff", expected="true or false", found="1"))
    not a bit (step 003, block 5, component ff): expected true or false, found 1
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
        remedy: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.file = None if file is None else os.fspath(file)
        self.step = step
        self.block = block
        self.component = component
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        place = _name_values(step=self.step, block=self.block, component=self.component)
        values = _name_values(expected=self.expected, found=self.found)
        text = printable(self.problem) + (f" ({place})" if place else "") + (f": {values}" if values else "")
        text = text if self.file is None else f"{printable(self.file)}: {text}"
        return text if self.remedy is None else f"{text}; {printable(self.remedy)}"


def printable(text: str) -> str:
    """Escape control characters, so that text from a file can neither break the line nor control the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, or the name of its class if there is no message.

    >>> first_line(OSError("no such file\nor folder")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _name_values(**fields: str | None) -> str:
    return ", ".join(f"{name} {_truncated(printable(text))}" for name, text in fields.items() if text is not None)


def _truncated(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
