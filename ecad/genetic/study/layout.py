"""The names of the files in a study's folder."""

from __future__ import annotations

from pathlib import Path

FRONT = "front"


TIMES = "times.json"


DATABASE = "study.sqlite"


LOCK = "study.lock"


FLAGS = "flags.json"


PICTURES = Path("images", "pictures.json")


MEASURED = "measured.json"
