"""`ecad schedule ...`: write hand-made and foreign schedules, carry them over, look at any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ecad.commands.main import finish, loading
from ecad.commands.options import MOST_STEPS, Overwrite, Pixels, finite
from ecad.commands.options import Steps as OtherSteps
from ecad.errors import EcadError
from ecad.utils.console import console, say

if TYPE_CHECKING:
    from ecad.schedules import CacheSchedule, Sites

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, import, resample, transfer and show cache schedules.",
)

ImageGenerator = Annotated[
    str,
    typer.Option(help="Its image generator: a name from `ecad models`, or a pipeline's folder, hub id or .json."),
]
Steps = Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Output file.")]
ScheduleFile = Annotated[Path, typer.Argument(help="Schedule file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts about the schedule as JSON.")]
Components = Annotated[
    str | None, typer.Option(help="Components that reuse outputs (comma-separated); by default all.")
]


@app.command("none")
def none(
    output: Output,
    image_generator: ImageGenerator = "EmojiImageGenerator",
    steps: Steps = 20,
    overwrite: Overwrite = False,
) -> None:
    """Recompute everything."""
    from ecad.schedules import heuristics

    _write(heuristics.none(*_model(image_generator, steps)), output, overwrite)


@app.command("every-n")
def every_n(
    output: Output,
    image_generator: ImageGenerator = "EmojiImageGenerator",
    n: Annotated[
        int | None, typer.Option(min=1, help="Recompute at every n-th step; by default every second, and says so.")
    ] = None,
    steps: Steps = 20,
    components: Components = None,
    overwrite: Overwrite = False,
) -> None:
    """Recompute at every n-th step (FORA)."""
    from ecad.schedules import heuristics

    schedule = heuristics.every_n(*_model(image_generator, steps), n or 2, _split(components))
    if n is None:
        say("--n is not given: every second step is recomputed (--n 2)")
    _write(schedule, output, overwrite)


@app.command("evenly-spaced")
def evenly_spaced(
    output: Output,
    num_blocks: Annotated[int, typer.Option(min=0, help="Number of blocks that reuse outputs.")],
    num_steps: Annotated[int, typer.Option(min=0, help="Number of steps in which they reuse outputs.")],
    image_generator: ImageGenerator = "EmojiImageGenerator",
    steps: Steps = 20,
    components: Components = None,
    overwrite: Overwrite = False,
) -> None:
    """Reuse in evenly spaced blocks at evenly spaced steps."""
    from ecad.schedules import heuristics

    model = _model(image_generator, steps)
    _write(heuristics.evenly_spaced_blocks(*model, num_blocks, num_steps, _split(components)), output, overwrite)


@app.command("middle")
def middle(
    output: Output,
    num_blocks: Annotated[int, typer.Option(min=0, help="Number of blocks that reuse outputs.")],
    num_steps: Annotated[int, typer.Option(min=0, help="Number of steps in which they reuse outputs.")],
    image_generator: ImageGenerator = "EmojiImageGenerator",
    steps: Steps = 20,
    components: Components = None,
    overwrite: Overwrite = False,
) -> None:
    """Reuse in the middle blocks at evenly spaced steps."""
    from ecad.schedules import heuristics

    model = _model(image_generator, steps)
    _write(heuristics.middle_blocks(*model, num_blocks, num_steps, _split(components)), output, overwrite)


@app.command("tgate")
def tgate(
    output: Output,
    image_generator: ImageGenerator = "EmojiImageGenerator",
    gate: Annotated[int, typer.Option(min=1, help="First step that reuses cross-attention.")] = 10,
    steps: Steps = 20,
    overwrite: Overwrite = False,
) -> None:
    """TGATE without its averaging of the guidance halves."""
    from ecad.schedules import heuristics

    _write(heuristics.tgate(*_model(image_generator, steps), gate), output, overwrite)


@app.command("import")
def import_schedule(
    source: Annotated[str, typer.Argument(help="A file, or the mask or list itself: 1110100 or 0,3,6.")],
    output: Output,
    kind: Annotated[str, typer.Option("--from", help="smoothcache, step-mask (1 = compute) or steps.")],
    image_generator: ImageGenerator = "EmojiImageGenerator",
    steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps; required for a list of steps.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a schedule from the file of another tool: SmoothCache, step masks, lists of whole steps."""
    from ecad.schedules import importers

    importers.check_kind(kind)
    if steps is None:
        sites, rows = _model(image_generator, 1)[0], None
    else:
        sites, rows = _model(image_generator, steps)
    _write(importers.from_text(cast(importers.Kind, kind), _text(source), sites, rows), output, overwrite, as_json)


@app.command("resample")
def resample(
    file: ScheduleFile,
    output: Output,
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps of the new schedule.")],
    image_generator: Annotated[
        str | None,
        typer.Option(help="Image generator whose sampler determines the rows. Without it, each step has one row."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry a schedule over to another number of steps (docs/resampling.md)."""
    from ecad.schedules import CacheSchedule

    schedule = CacheSchedule.load(file)
    rows = steps if image_generator is None else _model(image_generator, steps)[1]
    _write(schedule.resample(rows), output, overwrite, as_json)


@app.command("transfer")
def transfer(
    file: ScheduleFile,
    output: Output,
    image_generator: ImageGenerator,
    height: Pixels = None,
    width: Pixels = None,
    steps: OtherSteps = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry a schedule over to another image generator or image size; to another depth by relative depth."""
    from ecad.image_generators import check_image_generator
    from ecad.schedules import CacheSchedule

    check_image_generator(image_generator)
    source = CacheSchedule.load(file)
    from ecad.cost.macs import macs_table
    from ecad.image_generators import get_architecture
    from ecad.schedules.files import in_file

    architecture = get_architecture(image_generator, height, width)
    size = {"height": height or architecture.height, "width": width or architecture.width}
    rows = None if steps is None else _model(image_generator, steps)[1]
    with in_file(file):
        schedule = source.resample(rows, sites=macs_table(architecture).sites)
    # What else the file's config says is of the model it comes from: weights, guidance.
    _write(schedule.replace(config=size), output, overwrite, as_json)


@app.command("show")
def show(
    file: ScheduleFile,
    by_component: Annotated[bool, typer.Option(help="Show one map per component.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a schedule's card, and draw it: steps across, blocks down."""
    from ecad.schedules import CacheSchedule

    schedule = CacheSchedule.load(file)
    from ecad.schedules.heat_map import heat_map
    from ecad.schedules.provenance import made_for
    from ecad.schedules.sharing import card

    if as_json:
        provenance, _ = made_for(schedule.attributes)
        finish({**_facts(schedule), "provenance": provenance and provenance.to_json()}, "", as_json)
    else:
        console.print(card(schedule), markup=False, highlight=False, soft_wrap=True)
        console.print()
        width = min(shutil.get_terminal_size((80, 24)).columns, 120)
        console.print(heat_map(schedule, width=width, by_component=by_component), soft_wrap=True)


@app.command("sglang")
def sglang(
    schedule: Annotated[Path, typer.Argument(help="Schedule file or front.")],
    output: Output,
    speedup: Annotated[
        float,
        typer.Option(callback=finite, min=1, help="Pick the schedule of a front with at least this speed-up."),
    ] = 2.0,
    steps: Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps of the requests.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a --cache-dit-config file for SGLang diffusion; print the variables for its own backend."""
    from ecad.integrations import sglang as host
    from ecad.integrations.chosen import chosen_schedule
    from ecad.utils.files import write_new

    chosen = chosen_schedule(schedule, speedup=speedup).resample(steps)
    write_new(output, json.dumps(host.config_file(chosen), indent=1) + "\n", overwrite)
    for name, value in host.environment(chosen).items():
        print(f"export {name}={value}")


def _model(image_generator: str, steps: int) -> tuple[Sites, int]:
    """The sites of an image generator, and how many rows its sampler makes of a number of steps."""
    from ecad.image_generators import check_image_generator, image_generators

    check_image_generator(image_generator)
    if image_generator in image_generators():  # their samplers make one row of each step
        from ecad.cost.architectures import find_architecture, registered_sites

        return registered_sites(find_architecture(image_generator)), steps
    loading(image_generator)
    from ecad.cost.macs import macs_table
    from ecad.image_generators import get_image_generator

    generator = get_image_generator(image_generator)
    return macs_table(generator.architecture).sites, generator.rows(steps)


def _split(components: str | None) -> list[str] | None:
    return None if components is None else components.split(",")


def _text(source: str) -> str:
    """The content of a file, or the argument itself where there is no such file."""
    try:
        return Path(source).read_text(encoding="utf-8-sig") if Path(source).exists() else source
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise EcadError(f"{source}: cannot read this file: {reason}") from error


def _facts(schedule: CacheSchedule) -> dict[str, object]:
    facts = {
        "name": schedule.name,
        "steps": schedule.num_steps,
        "rows": schedule.num_steps,
        "sites": len(schedule.sites),
    }
    return {**facts, "share_recomputed": float(schedule.share_recomputed), "forecast": schedule.forecast}


def _write(schedule: CacheSchedule, output: Path, overwrite: bool, as_json: bool = False) -> None:
    from ecad.schedules.files import save_new

    save_new(schedule, output, overwrite)
    share = 100 * schedule.share_recomputed
    line = f"{output}: {schedule.name}, {schedule.num_steps} rows, {share:.1f}% recomputed"
    finish({"file": str(output), **_facts(schedule)}, line, as_json)
