"""The names of the files in a study's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DATABASE = "study.sqlite"
LOCK = "study.lock"
# The command line that the study was searched with.
FLAGS = "flags.json"
# Measured times by site, if the study is searched by latency.
TIMES = "times.json"
# A folder with the scores of the validation prompts, so that a selection that was stopped resumes.
VALIDATION = "validation"
# The exported schedules.
FRONT = "front"
# What of it is worth having, in one file.
FRONT_FILE = "front.json"
# What `ecad report --images` adds: the prompts and seeds of its images, and the measured speed-ups.
PICTURES = Path("images", "pictures.json")
MEASURED = "measured.json"


def study_folder(folder: Path, steps: Sequence[int], one: int) -> Path:
    """The folder of the study of one number of steps, in that of a search of several.

    >>> study_folder(Path("found"), [20], 20).name, study_folder(Path("found"), [10, 20], 10).name
    ('found', 'steps_010')
    """
    return folder / f"steps_{one:03d}" if len(steps) > 1 else folder
