"""The report as one HTML file that needs no network: plots, pictures, schedules, and how to use them."""

from __future__ import annotations

import base64
import io
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from ecad.files import write_atomic
from ecad.report import figures, summary, table
from ecad.report.palette import COLOURS, DARK, KINDS, LIGHT
from ecad.report.results import Entry, Results, file_stem

# Pictures larger than this are shown smaller: a page of a few hundred should stay within a few megabytes.
LARGEST_SIDE = 256
_WEBP_QUALITY = 88


def write_page(results: Results, folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the page.

    Args:
        results: what to show.
        folder: where the entries' images are; one that is missing or damaged leaves a labelled gap.
        path: the HTML file.

    Raises:
        EcadError: it cannot be written.
    """
    write_atomic(path, page(results, folder))


def page(results: Results, folder: str | os.PathLike[str]) -> str:
    """The page as text; arguments as for `write_page`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("page.html"))
    entries = [_entry(results, entry, Path(folder)) for entry in results.ordered()]
    plots = _plots(results)
    return template.render(
        results=results,
        headline=summary.headline(results),
        columns=table.header(results),
        entries=entries,
        chosen=_first_chosen(results),
        missing=[f"{entry['name']}: {i + 1}" for entry in entries for i in entry["missing"]],
        views=_views(results),
        spent=_spent(results),
        settings={k: value if isinstance(value, str) else json.dumps(value) for k, value in results.settings.items()},
        kinds=KINDS,
        colours=COLOURS,
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup(get_plotlyjs()),
        plotly_version=plotly.__version__,
        data={"recolour": {LIGHT[name]: DARK[name] for name in COLOURS}, "plots": plots},
    )


def _asset(name: str) -> str:
    return resources.files("ecad.report").joinpath(name).read_text("utf-8")


def _entry(results: Results, entry: Entry, folder: Path) -> dict[str, Any]:
    """What the template says of one entry."""
    columns = table.header(results)
    row = table.rows(results)[results.ordered().index(entry)]
    document = json.dumps(entry.schedule.to_json(), indent=1, allow_nan=False).encode()
    images = [_data_uri(folder / path) for path in entry.images]
    components = entry.schedule.components
    share = f"{entry.schedule.share_recomputed:.1%} of bits"
    file_name = f"{file_stem(entry.name)}.json"
    return {
        "name": entry.name,
        "kind": entry.kind,
        "macs": entry.macs,
        "numbers": row[1:],
        "facts": [*zip(columns[1:], row[1:], strict=True), ("recomputed", share)],
        "images": images,
        "missing": [i for i, image in enumerate(images) if image is None],
        "components": components if len(components) > 1 else (),
        "file_name": file_name,
        "download": f"data:application/json;base64,{base64.b64encode(document).decode()}",
        "python": f"import ecad\nschedule = ecad.CacheSchedule.load({file_name!r})\necad.enable_cache(pipe, schedule)",
    }


def _data_uri(path: Path) -> str | None:
    """A picture to be put into the page; None if there is none to be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format == "PNG" and max(image.size) <= LARGEST_SIDE:
                return f"data:image/png;base64,{base64.b64encode(content).decode()}"
            smaller = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, format="WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _views(results: Results) -> list[tuple[str, str]]:
    """The front's views: its key among the plots, and what a reader calls it."""
    views = [(f"front/{scorer}", f"Held-out: {scorer}") for scorer in results.scorers]
    main = summary.main_scorer(results)
    views.sort(key=lambda view: view[0] != f"front/{main}")
    return views + ([("search", f"Search: {results.quality_name}")] if results.candidates else [])


def _plots(results: Results) -> dict[str, Any]:
    """Every figure of the page as plotly's own JSON value, by the name under which the page asks for it."""
    made = {f"front/{scorer}": figures.held_out_figure(results, scorer) for scorer in results.scorers}
    if results.candidates:
        made["search"] = figures.search_figure(results)
    for i, entry in enumerate(results.ordered()):
        made[f"schedule/{i}/"] = figures.schedule_figure(entry.schedule)
        for component in entry.schedule.components:
            made[f"schedule/{i}/{component}"] = figures.schedule_figure(entry.schedule, component)
    made |= {f"history/{label}": figure for label, figure in figures.history_figures(results.history).items()}
    return {key: json.loads(figure.to_json()) for key, figure in made.items()}


def _first_chosen(results: Results) -> int | None:
    scorer = summary.main_scorer(results)
    entry = summary.pick(results, scorer) if scorer else None
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
