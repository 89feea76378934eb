"""The versions of what results depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

from ecad._version import __version__

# Packages whose release may change an image.
PACKAGES = ("diffusers", "numpy", "torch", "transformers")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of ecad, of Python and of installed packages.

    Args:
        packages: distribution names; what is not installed is left out.

    Returns:
        name -> version, without the name of a build such as `+cu130`.

    >>> sorted(versions(["numpy", "no-such-package"]))
    ['ecad', 'numpy', 'python']
    """
    found = {"ecad": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
