"""Makes `synthetic.py` importable: a subprocess that is to be killed needs it as well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
