"""The names of the files in a study's folder."""

from __future__ import annotations

from pathlib import Path

DATABASE = "study.sqlite"
LOCK = "study.lock"
# The command line that the study was searched with.
FLAGS = "flags.json"
# Measured times by site, if the study is searched by latency.
TIMES = "times.json"
# The exported schedules.
FRONT = "front"
# What of it is worth having, in one file.
FRONT_FILE = "front.json"
# What `ecad report --images` adds: the prompts and seeds of its images, and the measured speed-ups.
PICTURES = Path("images", "pictures.json")
MEASURED = "measured.json"
