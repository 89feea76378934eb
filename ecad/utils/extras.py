"""Optional packages, and the error that says how to install them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ecad.errors import EcadError


@contextmanager
def benchmark_extra(what: str) -> Iterator[None]:
    """Turn a package that is not installed into the line that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise EcadError(f"{what} needs {error.name}: run pip install 'ecad[benchmark]'") from error


NEEDED = ("jinja2", "matplotlib", "plotext", "plotly")


def check_installed() -> None:
    """Raise EcadError, before any work, unless the packages that a report needs are there."""
    if missing := missing_packages():
        raise EcadError(missing)


def missing_packages() -> str | None:
    """What a report needs and is not installed, and how to mend it; None if all is there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    return f"a report needs {', '.join(missing)}: pip install 'ecad[report]'" if missing else None
