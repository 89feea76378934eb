"""Optional packages, and the error that says how to install them: by their own names, which pip finds anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ecad.errors import EcadError

# Module -> the package that has it, where the names differ.
_PACKAGES = {"cleanfid": "clean-fid"}
REPORT_PACKAGES = ("jinja2", "matplotlib", "plotext", "plotly")


@contextmanager
def benchmark_extra(feature: str) -> Iterator[None]:
    """Turn an ImportError into an EcadError that says how to install what is missing of the extra `benchmark`.

    Args:
        feature: what needs the package, for the message.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or str(error)).split(".")[0]
        package = _PACKAGES.get(name, name)
        raise EcadError(f"{feature} needs {package}: run pip install {package}") from error


def check_installed() -> None:
    """Check, before any work is done, that the packages of the extra `report` are installed.

    Raises:
        EcadError: a package is missing.
    """
    if missing := missing_packages():
        raise EcadError(missing)


def missing_packages() -> str | None:
    """Which packages of the extra `report` are missing and how to install them, in one line; None if none is."""
    missing = [name for name in REPORT_PACKAGES if find_spec(name) is None]
    return f"a report needs {', '.join(missing)}: run pip install {' '.join(missing)}" if missing else None
