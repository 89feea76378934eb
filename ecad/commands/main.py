"""What all commands share: how they end, how they fail, how they show progress."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from ecad.errors import EcadError, EcadWarning


def main(command: Callable[..., None] | typer.Typer) -> None:
    """Run a command; a user's mistake is one line on stderr and exit code 2, an interruption exit code 130."""
    # The libraries' own bars and warnings would hide ours; whoever wants them sets these otherwise.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.showwarning = _show_warning
    app = command if isinstance(command, typer.Typer) else _single(command)
    try:
        sys.exit(typer.main.get_command(app).main(standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        print("ecad: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Wrong flags: typer keeps the class of these errors to itself, but they all can say what they are.
        message = getattr(error, "format_message", None)
        if not isinstance(error, EcadError) and message is None:
            raise
        print(f"ecad: {' '.join((message() if message else str(error)).split())}", file=sys.stderr)
        sys.exit(2)


def require_exact() -> None:
    """From now on a schedule that was made for other conditions is refused instead of warned of."""
    warnings.simplefilter("error", EcadWarning)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    text = str(message) if category is EcadWarning else f"{category.__name__}: {message}"
    print(f"ecad: warning: {' '.join(text.split())}", file=sys.stderr)


def _single(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    return app


def finish(result: dict[str, Any], line: str, as_json: bool) -> None:
    """Print a result: as JSON for programs, as one line for people."""
    print(json.dumps(result, indent=1) if as_json else line)
