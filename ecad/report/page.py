"""The report as one HTML file that needs no network: plots, images, and schedules to download."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecad.report import figures, summary, table
from ecad.report.html import data_uri, render
from ecad.report.results import Entry, Results
from ecad.report.videos import video_header, video_rows
from ecad.schedules import CacheSchedule, Sites
from ecad.schedules.figure import LOOKS, schedule_figure
from ecad.schedules.output_products import Products, same_products
from ecad.utils.files import as_file_name, write_atomic
from ecad.utils.plot_style import KINDS, escaped

# What a search and a calibration write beside a report (`ecad.Front`).
FRONT_FILE = "front.json"
COSTS: tuple[tuple[summary.Cost, str], ...] = (
    ("macs", "MACs"),
    ("time", "time"),
    ("expected", "time (expected)"),
    ("memory", "memory"),
)


def write_page(results: Results, folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the page.

    Args:
        results: what to show.
        folder: the folder of the entries' images; missing or damaged ones leave a labelled gap.
        path: the HTML file.

    Raises:
        EcadError: the page cannot be written.
    """
    write_atomic(path, page(results, folder))


def page(results: Results, folder: str | os.PathLike[str], live: str | None = None) -> str:
    """The page as HTML text.

    Args:
        results, folder: as for `write_page`.
        live: what the server of a live page answers until the study changes; None for a page without a server.
    """
    rows = table.rows(results)
    frames = [picture.frames for picture in results.pictures]
    entries = [
        _entry(results, entry, row, Path(folder), frames) for entry, row in zip(results.ordered(), rows, strict=True)
    ]
    # A live page is written again and again.
    videos = [] if live else video_rows(results, Path(folder))
    tables = list(dict.fromkeys((entry.schedule.num_steps, entry.schedule.sites) for entry in results.ordered()))
    return render(
        "page.html",
        ["draw.js", "page.js"],
        title=results.title,
        results=results,
        headline=summary.headline(results),
        columns=table.header(results),
        entries=entries,
        videos=videos,
        video_columns=video_header(videos),
        missing=[*results.missing, *_gaps(entries)],
        qualities=_qualities(results),
        costs=[(key, label) for key, label in COSTS if _known(results, key)],
        last_generation=max((one.generation for one in results.candidates), default=0),
        spent=_spent(results),
        extrapolates=any(entry.schedule.forecast for entry in results.entries),
        has_front=(Path(folder) / FRONT_FILE).is_file(),
        settings={k: value if isinstance(value, str) else json.dumps(value) for k, value in results.settings.items()},
        kinds=KINDS,
        data={
            "plots": _plots(results, tables),
            "looks": LOOKS,
            "tables": [_table(results, *one) for one in tables],
            "points": [_point(results, entry, row, tables) for entry, row in zip(results.ordered(), rows, strict=True)],
            "candidates": _candidates(results),
            "columns": table.header(results)[1:],
            "chosen": _first_chosen(results),
            "live": live,
            "front": _front(Path(folder)),
        },
    )


def _entry(results: Results, entry: Entry, row: list[str], folder: Path, frames: Sequence[int]) -> dict[str, object]:
    """The template's values for one entry."""
    images = [data_uri(folder / path, count) for path, count in zip(entry.images, frames, strict=False)]
    return {
        "name": entry.name,
        "label": summary.label(results, entry),
        "kind": entry.kind,
        "macs": entry.macs,
        "numbers": row[1:],
        "share": _share(entry.schedule),
        "images": images,
        "missing": [i for i, image in enumerate(images) if image is None],
    }


def _share(schedule: CacheSchedule) -> str:
    return f"{schedule.share_recomputed:.1%} recomputed{', others extrapolated' if schedule.forecast else ''}"


def _gaps(entries: list[dict[str, Any]]) -> list[str]:
    lost = [f"{entry['name']}: {i + 1}" for entry in entries for i in entry["missing"]]
    if not lost:
        return []
    many = f"{len(lost)} image{'s' if len(lost) > 1 else ''} could not be read: "
    return [many + ", ".join(lost[:6]) + (", …" if len(lost) > 6 else "")]


def _qualities(results: Results) -> list[tuple[str, str]]:
    """The choices for the vertical axis of the plot: the key of a plot, and its label."""
    main = summary.main_scorer(results)
    scorers = sorted(results.scorers, key=lambda scorer: scorer != main)
    found = [(f"held-out/{scorer}", f"Held-out: {scorer}") for scorer in scorers]
    searched = results.candidates or summary.search_points(results)
    return found + ([("search", f"Search: {results.quality_name}")] if searched else [])


def _known(results: Results, cost: summary.Cost) -> bool:
    """Whether a cost is known of any entry but the uncached one."""
    return cost == "macs" or any(
        entry.kind != "uncached" and summary.cost_of(entry, cost) is not None for entry in results.entries
    )


def _plots(results: Results, tables: list[tuple[int, Sites]]) -> dict[str, object]:
    """All figures of the page as plotly's JSON values, by the name that the script uses."""
    made = {
        f"{quality}/{cost}": figures.front_figure(results, quality.partition("/")[2] or None, cost)
        for quality, _ in _qualities(results)
        for cost, _ in COSTS
        if _known(results, cost)
    }
    if results.history:
        made["hypervolume"] = figures.history_figure(results)
    if results.guesses:
        made["guesses"] = figures.surrogate_figure(results)
    for i, (steps, sites) in enumerate(tables):
        # The script fills it with the chosen schedule.
        made[f"schedule/{i}"] = schedule_figure(CacheSchedule.from_bits([True] * steps * len(sites), sites))
    return {key: json.loads(figure.to_json()) for key, figure in made.items()}


def _table(results: Results, steps: int, sites: Sites) -> dict[str, object]:
    """What schedules of one shape share. The script completes the document to a schedule file."""
    first = _of_shape(results, steps, sites)[0]
    return {
        "steps": steps,
        "sites": sites,
        "labels": [escaped(block) for block, _ in sites],
        "components": first.components,
        "document": first.replace(
            name="",
            forecast=False,
            output_products=_products(results, steps, sites),
            metrics={},
            attributes={},
            custom_compute={},
            skeleton={},
        ).to_json(),
    }


def _of_shape(results: Results, steps: int, sites: Sites) -> list[CacheSchedule]:
    """The entries' schedules of one shape."""
    return [e.schedule for e in results.ordered() if (e.schedule.num_steps, e.schedule.sites) == (steps, sites)]


def _products(results: Results, steps: int, sites: Sites) -> Products | None:
    """The output products of the first schedule of a shape that has any."""
    known = (one.output_products for one in _of_shape(results, steps, sites))
    return next((products for products in known if products is not None), None)


def _point(results: Results, entry: Entry, row: list[str], tables: list[tuple[int, Sites]]) -> dict[str, object]:
    """The script's values for one entry."""
    schedule = entry.schedule
    document = schedule.to_json()
    shared = _products(results, schedule.num_steps, schedule.sites)
    is_special = schedule.forecast and not same_products(schedule.output_products, shared)
    is_special |= schedule.output_weights is not None
    own = document if schedule.custom_compute or schedule.skeleton or len(schedule.spare) or is_special else None
    return {
        "name": entry.name,
        "label": summary.label(results, entry),
        "kind": entry.kind,
        "kindName": KINDS[entry.kind],
        "numbers": row[1:],
        "table": tables.index((schedule.num_steps, schedule.sites)),
        "bits": base64.b64encode(summary.packed(schedule.recompute)).decode(),
        "forecast": schedule.forecast,
        "own": own,
        "config": document.get("config", {}),
        "metrics": document.get("metrics", {}),
        "attributes": document["cache_schedule"].get("attributes", {}),
        "file": f"{as_file_name(entry.name)}.json",
    }


def _candidates(results: Results) -> dict[str, object]:
    """The numbers of all candidates, and their bits if all have them; the script unpacks these on demand."""
    best = results.uncached
    whole = best is not None and all(one.bits for one in results.candidates)
    bits = zlib.compress(b"".join(one.bits for one in results.candidates)) if whole else b""
    macs = [other.macs for other in results.entries]
    columns = {
        "MACs": [summary.macs_text(one.macs, macs) for one in results.candidates],
        table.MAC_REDUCTION: [
            summary.ratio_text(None if best is None else best.macs / one.macs) for one in results.candidates
        ],
        f"{results.quality_name}, search": [f"{one.quality:.4g}" for one in results.candidates],
        table.EXPECTED_TIME: [summary.expected_text(one.expected_ns) for one in results.candidates],
        table.CACHE_MEMORY: [summary.bytes_text(one.kept_bytes) for one in results.candidates],
    }
    known = [name for name, texts in columns.items() if any(text != summary.NOT_MEASURED for text in texts)]
    return {
        "names": [f"gen_{one.generation:03d}_cand_{one.number:03d}" for one in results.candidates],
        "numbers": list(zip(*(columns[name] for name in known), strict=True)),
        "columns": known,
        "bits": base64.b64encode(bits).decode(),
        "forecast": [one.forecast for one in results.candidates],
    }


def _front(folder: Path) -> str | None:
    """The front's file, compressed, for the page to hand out; None if there is none."""
    file = folder / FRONT_FILE
    return base64.b64encode(zlib.compress(file.read_bytes(), 9)).decode() if file.is_file() else None


def _first_chosen(results: Results) -> int | None:
    entry = summary.recommended(results)
    entries = results.ordered()
    return entries.index(entry) if entry else (len(entries) - 1 if entries else None)


def _spent(results: Results) -> str | None:
    if not results.history:
        return None
    last = results.history[-1]
    return (
        f"{len(results.history):,} generations, {len(results.candidates):,} schedules evaluated, "
        f"{last.images:,} images, {summary.duration_text(last.seconds)}"
    )
