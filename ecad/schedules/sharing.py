"""Schedules as folders that can be shared: the schedule's file and its card, on disk or on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ecad.errors import EcadError, printable
from ecad.schedules.provenance import Provenance, made_for
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.files import write_atomic

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


def card(schedule: CacheSchedule) -> str:
    """Everything that a schedule's file says, for people.

    Raises:
        ScheduleError: its provenance is malformed.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> print(card(heuristics.every_n(pixart_sites(2), 6, 3)))
    # every_3
    <BLANKLINE>
    A cache schedule: 6 steps, 2 blocks of attn1, attn2, ff; 33.3% recomputed, the rest reused.
    <BLANKLINE>
    It does not say what it was made for.
    """
    # Files come from strangers: what they say must not do things to a terminal.
    return "\n".join(map(printable, _text(schedule).split("\n")))


def _text(schedule: CacheSchedule) -> str:
    provenance, steps = made_for(schedule.attributes)
    components = ", ".join(schedule.components)
    parts = [
        f"# {schedule.name}",
        f"A cache schedule: {schedule.num_steps} steps, {len(schedule.blocks)} blocks of {components}; "
        f"{schedule.share_recomputed:.1%} recomputed, the rest {'forecast' if schedule.forecast else 'reused'}.",
    ]
    if provenance is None:
        return "\n\n".join([*parts, "It does not say what it was made for."])
    if steps is not None:
        parts.append(f"Resampled from {steps} steps. The scores are those of the schedule it was resampled from.")
    parts += ["## Made for", "\n".join(f"- {name}: {value}" for name, value in _conditions(provenance))]
    parts += ["## Worth", "\n".join(_worth(schedule, provenance))]
    if provenance.search:
        parts += ["## Found by", "\n".join(f"- {name}: {value}" for name, value in provenance.search.items())]
    return "\n\n".join(parts)


def _conditions(provenance: Provenance) -> Iterator[tuple[str, object]]:
    yield "model", provenance.model or "not said"
    yield "denoiser", f"{provenance.denoiser}, layout {provenance.layout}, configuration {provenance.configuration}"
    rest = {
        "weights": provenance.weights,
        "sampler": provenance.sampler,
        "image": f"{provenance.width} x {provenance.height} pixels" if provenance.width and provenance.height else None,
        "guidance scale": provenance.guidance_scale,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    yield from ((name, value) for name, value in rest.items() if value)


def _worth(schedule: CacheSchedule, provenance: Provenance) -> Iterator[str]:
    """Only what was measured: MACs and time are among the metrics once `ecad macs` and `ecad latency` were run."""
    macs, latency = schedule.metrics.get("total_macs"), schedule.metrics.get("latency")
    if macs is not None:
        yield f"- MACs of an image: {macs:,}" if isinstance(macs, int) else f"- MACs of an image: {macs}"
    if isinstance(latency, Mapping):
        speedup = latency.get("speedup", "not said")
        shown = f"{speedup:.3g}" if isinstance(speedup, float) else speedup
        yield f"- measured speed-up: {shown} on {latency.get('gpu', 'a device not named')}"
    for scorer, score in provenance.held_out.items():
        images = f"{provenance.held_out_images} held-out images"
        yield f"- {scorer}: {score.mean:.2f} [{score.low:.2f}, {score.high:.2f}], 95% interval, {images}"
    if not provenance.held_out:
        yield "- no score on held-out prompts"
