"""Where other processes of a test find this folder, and the package that is tested."""

from __future__ import annotations

import os
from pathlib import Path

import ecad

SUPPORT = Path(__file__).parent


def python_path() -> str:
    """The value of PYTHONPATH for processes that import from here, and the same `ecad` as this one."""
    return os.pathsep.join([str(SUPPORT), str(Path(ecad.__file__).parents[1])])
