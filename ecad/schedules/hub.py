"""Schedules as folders that can be shared: the schedule's file and its card, on disk or on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ecad.errors import EcadError
from ecad.files import write_atomic
from ecad.schedules.card import card
from ecad.schedules.schedule import CacheSchedule

FILE, CARD = "schedule.json", "README.md"
_HEAD = "---\nlibrary_name: ecad\ntags:\n- ecad\n- diffusers\n- cache-schedule\n---\n\n"
_USE = """

## Use

```python
import ecad

schedule = ecad.CacheSchedule.from_pretrained({place})
ecad.enable_cache(pipe, schedule)
image = pipe("a fox", num_inference_steps={steps}).images[0]
```
"""


def save_folder(schedule: CacheSchedule, folder: str | os.PathLike[str], place: str | None = None) -> None:
    """Write a schedule and its card.

    Args:
        schedule: what to share.
        folder: for `schedule.json` and `README.md`.
        place: what the card calls it; the folder itself by default.

    Raises:
        EcadError: it cannot be written, or its provenance is malformed.
    """
    text = _HEAD + card(schedule) + _USE.format(place=json.dumps(place or os.fspath(folder)), steps=schedule.num_steps)
    schedule.save(Path(folder) / FILE)
    write_atomic(Path(folder) / CARD, text)


def push(schedule: CacheSchedule, repo: str, private: bool = False) -> str:
    """Upload a schedule and its card; the repository is made if there is none.

    Args:
        schedule: what to share.
        repo: "organisation/name".
        private: whether a new repository is.

    Returns:
        the address of the upload.

    Raises:
        EcadError: the hub does not take it, or cannot be reached.
    """
    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save_folder(schedule, folder, repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Schedule {schedule.name}")
        except Exception as error:  # the hub's HTTP library, and so the class of its errors, is its own affair
            raise EcadError(f"{repo}: cannot upload the schedule: {_line(error)}") from error
    return str(done)


def pull(place: str | os.PathLike[str], revision: str | None = None) -> CacheSchedule:
    """Read a schedule from a folder, or from the hub if there is no such folder.

    Args:
        place: a folder with `schedule.json`, or "organisation/name".
        revision: branch, tag or commit on the hub.

    Raises:
        EcadError: there is none, or the hub cannot be reached.
        ScheduleError: it is malformed.
    """
    if Path(place).is_dir():
        return CacheSchedule.load(Path(place) / FILE)
    try:
        file = hf_hub_download(os.fspath(place), FILE, revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EcadError(
            f"{os.fspath(place)}: expected a folder or a hub repository with {FILE}, found none: {_line(error)}"
        ) from error
    return CacheSchedule.load(file)


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
