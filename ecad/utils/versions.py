"""The versions and settings that results depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping

from ecad._version import __version__

# Packages whose release may change an image.
PACKAGES = ("diffusers", "numpy", "torch", "transformers")
# Among settings: component of the pipeline -> its fingerprint.
PARTS = "parts"
# Among settings and scores: what a scorer's scores depend on beside its version -> fingerprint.
SCORER_PARTS = "scorer_parts"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of ecad, of Python and of installed packages.

    Args:
        packages: distribution names; packages that are not installed are left out.

    Returns:
        name -> version, without a build tag such as `+cu130`.

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


def without_parts(settings: Mapping[str, object], key: str = PARTS) -> dict[str, object]:
    """Settings of embeddings or images as earlier releases wrote them: without the fingerprint of every component.

    >>> without_parts({"dtype": "float32", "parts": {"vae": "12ab"}, "embeddings": {"parts": {"tokenizer": "34cd"}}})
    {'dtype': 'float32', 'embeddings': {}}
    """
    return {
        name: without_parts(value, key) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != key
    }
