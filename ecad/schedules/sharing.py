"""Shares schedules and fronts: a folder with the file and its card, on disk or on the Hugging Face Hub."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ecad.errors import EcadError, first_line, printable
from ecad.schedules.provenance import Provenance, made_for
from ecad.utils.files import write_atomic

if TYPE_CHECKING:
    from ecad.schedules.front import Front
    from ecad.schedules.schedule import CacheSchedule

FILE, FRONT, CARD = "schedule.json", "front.json", "README.md"

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


_USE_FRONT = """

## Use

```python
import ecad

run = ecad.enable_cache(pipe, {place}, speedup={speedup:.2f})
image = pipe("a fox", num_inference_steps={steps}).images[0]
```
"""


def save_folder(schedule: CacheSchedule, folder: str | os.PathLike[str], place: str | None = None) -> None:
    """Write a schedule and its card to a folder.

    Args:
        schedule: the schedule to share.
        folder: where `schedule.json` and `README.md` are written.
        place: the folder or repository that the card's example loads from; `folder` by default.

    Raises:
        EcadError: a file cannot be written, or the provenance is malformed.
    """
    text = _HEAD + card(schedule) + _USE.format(place=json.dumps(place or os.fspath(folder)), steps=schedule.num_steps)
    schedule.save(Path(folder) / FILE)
    write_atomic(Path(folder) / CARD, text)


def save_front_folder(front: Front, folder: str | os.PathLike[str], place: str | None = None) -> None:
    """Write a front, `front.json`, and its card to a folder; arguments and errors as for `save_folder`."""
    middle = front.points[len(front.points) // 2]
    where, steps = json.dumps(place or os.fspath(folder)), middle.schedule.num_steps
    use = _USE_FRONT.format(place=where, speedup=math.floor(100 * middle.speedup) / 100, steps=steps)
    text = _HEAD + front_card(front) + use
    front.save(Path(folder) / FRONT)
    write_atomic(Path(folder) / CARD, text)


def push(shared: CacheSchedule | Front, repo: str, private: bool = False) -> str:
    """Upload a schedule or a front and its card to a repository, which is created if it does not exist.

    Args:
        shared: what to share.
        repo: "organisation/name".
        private: whether a new repository is private.

    Returns:
        the URL of the upload.

    Raises:
        EcadError: the hub refuses the upload or cannot be reached.
    """
    from huggingface_hub import HfApi

    from ecad.schedules.front import Front

    api = HfApi()
    what = "Front" if isinstance(shared, Front) else "Schedule"
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(shared, Front):
            save_front_folder(shared, folder, repo)
        else:
            save_folder(shared, folder, repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            uploaded = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"{what} {shared.name}")
        except Exception as error:  # the errors of the hub's HTTP library are not part of its interface
            raise EcadError(f"{repo}: cannot upload the {what.lower()}: {first_line(error)}") from error
    return str(uploaded)


def pull(place: str | os.PathLike[str], revision: str | None = None, file: str = FILE) -> Path:
    """Find a shared file in a folder, or download it from the hub if there is no such folder.

    Args:
        place: a folder with the file, or "organisation/name".
        revision: branch, tag or commit on the hub.
        file: `FILE` of a schedule or `FRONT`.

    Raises:
        EcadError: the file does not exist, or the hub cannot be reached.
    """
    if Path(place).is_dir():
        return Path(place) / file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(os.fspath(place), file, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EcadError(
            f"{os.fspath(place)}: neither a folder nor a hub repository with a {file}: {first_line(error)}"
        ) from error


def card(schedule: CacheSchedule) -> str:
    """Describe a schedule in Markdown: what it was made for, its cost and its scores.

    Raises:
        ScheduleError: the provenance is malformed.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> print(card(heuristics.every_n(pixart_sites(2), 6, 3)))
    # every_3
    <BLANKLINE>
    A cache schedule for 6 steps and 2 blocks of attn1, attn2, ff. It recomputes 33.3% of the outputs and reuses the
    others.
    <BLANKLINE>
    The file does not say which model it was made for.
    """
    # A file may come from a stranger, and its text must not control the terminal.
    return "\n".join(map(printable, _text(schedule).split("\n")))


def front_card(front: Front) -> str:
    """Describe a front in Markdown: its schedules, and what they were made for.

    Raises:
        ScheduleError: the provenance of a schedule is malformed.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> from ecad.schedules.front import Front, Point
    >>> print(front_card(Front("tiny", [Point(heuristics.every_n(pixart_sites(2), 6, 3), 1 / 3, 30.0)])))
    # tiny
    <BLANKLINE>
    A front of cache schedules for 6 steps.
    <BLANKLINE>
    | schedule | speed-up (MACs) | psnr |
    | --- | ---: | ---: |
    | every_3 | 3.00 | 30.00 |
    <BLANKLINE>
    The file does not say which model it was made for.
    """
    first = front.points[0].schedule
    rows = [f"| {one.schedule.name} | {one.speedup:.2f} | {one.quality:.2f} |" for one in front.points]
    head = [f"| schedule | speed-up ({front.unit}) | {front.scorer} |", "| --- | ---: | ---: |"]
    parts = [f"# {front.name}", f"A front of cache schedules for {first.num_steps} steps.", "\n".join(head + rows)]
    provenance, _ = made_for(first.attributes)
    if provenance is None:
        parts.append("The file does not say which model it was made for.")
    else:
        parts += ["## Made for", "\n".join(f"- {name}: {value}" for name, value in _conditions(provenance))]
    return "\n".join(map(printable, "\n\n".join(parts).split("\n")))


def _text(schedule: CacheSchedule) -> str:
    provenance, steps = made_for(schedule.attributes)
    components = ", ".join(schedule.components)
    verb = "extrapolates" if schedule.forecast else "reuses"
    parts = [
        f"# {schedule.name}",
        f"A cache schedule for {schedule.num_steps} steps and {len(schedule.blocks)} blocks of {components}. "
        f"It recomputes {schedule.share_recomputed:.1%} of the outputs and {verb} the others.",
    ]
    if provenance is None:
        return "\n\n".join([*parts, "The file does not say which model it was made for."])
    if steps is not None:
        parts.append(f"Resampled from {steps} steps. The scores are those of the original schedule.")
    parts += ["## Made for", "\n".join(f"- {name}: {value}" for name, value in _conditions(provenance))]
    parts += ["## Cost and quality", "\n".join(_measurements(schedule, provenance))]
    if provenance.search:
        parts += ["## Search", "\n".join(f"- {name}: {value}" for name, value in provenance.search.items())]
    return "\n\n".join(parts)


def _conditions(provenance: Provenance) -> Iterator[tuple[str, object]]:
    yield "model", provenance.model or "unknown"
    yield "denoiser", f"{provenance.denoiser}, layout {provenance.layout}, configuration {provenance.configuration}"
    optional = {
        "weights": provenance.weights,
        "sampler": provenance.sampler,
        "image": f"{provenance.width}×{provenance.height} pixels" if provenance.width and provenance.height else None,
        "guidance scale": provenance.guidance_scale,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    yield from ((name, value) for name, value in optional.items() if value)


def _measurements(schedule: CacheSchedule, provenance: Provenance) -> Iterator[str]:
    """What was measured: MACs and latency are among the metrics after `ecad macs` and `ecad latency`."""
    macs, latency = schedule.metrics.get("total_macs"), schedule.metrics.get("latency")
    if macs is not None:
        yield f"- MACs per image: {macs:,}" if isinstance(macs, int) else f"- MACs per image: {macs}"
    if isinstance(latency, Mapping):
        speedup = latency.get("speedup", "unknown")
        shown = f"{speedup:.3g}" if isinstance(speedup, float) else speedup
        yield f"- measured speed-up: {shown} on {latency.get('gpu', 'an unknown device')}"
    for scorer, score in provenance.held_out.items():
        images = f"{provenance.held_out_images} held-out images"
        yield f"- {scorer}: {score.mean:.2f} [{score.low:.2f}, {score.high:.2f}], 95% interval, {images}"
    if not provenance.held_out:
        yield "- no held-out scores"
