"""What all commands share: how they end and how they report mistakes and warnings."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from ecad.errors import EcadError, EcadWarning
from ecad.utils.console import say

# Libraries' own progress bars and log lines would mix with the command's; a user may set these otherwise.
_QUIET = {
    "TQDM_DISABLE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
}


class Interrupted(Exception):
    """A user's Ctrl-C; the message says what is kept, and the command that goes on."""


@contextmanager
def interruptible(kept: str | Callable[[], str]) -> Iterator[None]:
    """Say what is kept if Ctrl-C ends a block."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(kept if isinstance(kept, str) else kept()) from None


def main(command: Callable[..., None] | typer.Typer) -> None:
    """Run a command and exit; a user's mistake is one line on stderr and exit code 2, an interruption exit code 130."""
    app = typer.main.get_command(command if isinstance(command, typer.Typer) else single(command))
    with _quiet_libraries():
        try:
            sys.exit(app.main(standalone_mode=False) or 0)
        except Interrupted as stop:
            print(f"ecad: interrupted: {stop}", file=sys.stderr)
            sys.exit(130)
        except (KeyboardInterrupt, typer.Abort):
            print("ecad: interrupted: finished files are kept; the same command makes the others", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            # typer does not export the class of its usage errors, but all of them have this method.
            usage = getattr(error, "format_message", None)
            if not isinstance(error, EcadError) and usage is None:
                raise
            message = usage() if usage else with_flags(str(error), _flags(app))
            print(f"ecad: {' '.join(message.split())}", file=sys.stderr)
            sys.exit(2)


def require_exact() -> None:
    """For the rest of the command, refuse a schedule that was made for other conditions instead of warning."""
    warnings.simplefilter("error", EcadWarning)


def loading(what: str, hidden: bool = False) -> None:
    """Say what is loaded, before the import of PyTorch, which takes seconds of silence on a slow machine."""
    if not hidden:
        say(f"loading {what}")


def tell_left_out(reasons: Mapping[Any, str]) -> None:
    """Say which files or folders a command leaves out, and why."""
    for place, reason in reasons.items():
        say(f"{place}: left out: {reason}")


def finish(result: Mapping[str, object], line: str, as_json: bool) -> None:
    """Print a result: as JSON for programs, as one line for people."""
    print(json.dumps(result, indent=1) if as_json else line)


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace the argument names in a library's message by the command's flags.

    Args:
        message: names arguments in backticks.
        flags: argument name -> flag.

    >>> with_flags("`max_cost`: expected at least 3, found 2; see `ray status`", {"max_cost": "--max-cost"})
    '--max-cost: expected at least 3, found 2; see `ray status`'
    """
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), message)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Show warnings as one line, and only ours; the environment and the warnings module are restored afterwards."""
    added, show = _QUIET.keys() - os.environ.keys(), warnings.showwarning
    os.environ.update({name: _QUIET[name] for name in added})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        warnings.showwarning = show
        for name in added:
            os.environ.pop(name, None)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    text = str(message) if category is EcadWarning else f"{category.__name__}: {message}"
    print(f"ecad: warning: {' '.join(text.split())}", file=sys.stderr)


def single(command: Callable[..., None]) -> typer.Typer:
    """A Typer application of one command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    return app


def _flags(command: Any) -> dict[str, str]:
    """Argument name -> flag, of a command, or of the command of a group that runs."""
    found: dict[str, str] = {}
    if (inner := getattr(command, "running", None)) is not None:
        found |= _flags(inner)
    for inner in getattr(command, "commands", {}).values():
        found |= _flags(inner)
    for parameter in command.params:
        if long := [option for option in parameter.opts if option.startswith("--")]:
            found[parameter.name] = long[0]
    return found
