"""`ecad <job>`: every job as a subcommand, imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Annotated, NamedTuple

import typer
from typer.core import TyperGroup

from ecad._version import __version__
from ecad.commands import main as commands


class _Home(NamedTuple):
    """Where a command is, and what it does."""

    module: str
    name: str
    help: str


# Group -> command -> its home: `ecad --help` imports none of them.
COMMANDS = {
    "Search": {
        "optimize": _Home(
            "ecad.commands.optimize", "optimize", "Search for cache schedules: a Pareto front of cost against quality."
        ),
        "calibrate": _Home(
            "ecad.commands.calibrate",
            "calibrate",
            "Make a front of schedules from a handful of images, without a search.",
        ),
        "study": _Home("ecad.commands.study", "app", "List studies, export one as a table, show what its probes say."),
        "report": _Home(
            "ecad.commands.report", "report", "Write plots, tables and a page of a search or of generated images."
        ),
        "demo": _Home("ecad.commands.demo", "demo", "Search on the built-in model and show the result (minutes)."),
    },
    "Use": {
        "infer": _Home(
            "ecad.inference.inference", "infer", "Generate images from prompts, with or without a schedule."
        ),
        "schedule": _Home("ecad.commands.schedule", "app", "Write, import, resample, transfer and show schedules."),
        "models": _Home(
            "ecad.commands.models", "models", "List image generators and the transformers that can be cached."
        ),
        "doctor": _Home(
            "ecad.commands.doctor", "doctor", "Print versions, devices, weights and disk space for a bug report."
        ),
    },
    "Benchmark": {
        "embed": _Home("ecad.benchmark.generate_embeddings", "embed", "Encode a prompt file."),
        "embed-coco": _Home(
            "ecad.benchmark.generate_coco_embeddings", "embed_coco", "Encode COCO's captions into folders of 3,000."
        ),
        "embed-mjhq": _Home(
            "ecad.benchmark.generate_mjhq_embeddings", "embed_mjhq", "Encode MJHQ's prompts, a folder per category."
        ),
        "embed-parti": _Home("ecad.benchmark.generate_embeddings_parti", "embed_parti", "Encode PartiPrompts."),
        "generate": _Home(
            "ecad.benchmark.generate_images",
            "generate",
            "Generate images from stored embeddings, under one schedule or many.",
        ),
        "score": _Home("ecad.benchmark.score_images", "score", "Score images: ImageReward, CLIP, PSNR and others."),
        "clip": _Home("ecad.benchmark.compute_clip", "clip", "Compute the CLIP score of a folder of images."),
        "fid": _Home("ecad.benchmark.compute_fid", "fid", "Compute FID and KID between two folders of images."),
        "macs": _Home("ecad.benchmark.compute_macs", "macs", "Count the MACs of one image under each schedule."),
        "latency": _Home("ecad.benchmark.compute_latency", "latency", "Time schedules against uncached images."),
    },
    "Data": {
        "fetch": _Home(
            "ecad.commands.fetch", "fetch", "Download prompt files, reference images and published schedules."
        ),
    },
}
_HOMES = {name: home for group in COMMANDS.values() for name, home in group.items()}


class _Commands(TyperGroup):
    """The commands in their groups; each is imported when it runs or shows its help.

    Attributes:
        running: The command that was last asked for; a message about its arguments names its flags.
    """

    running: object = None

    def list_commands(self, ctx: object) -> list[str]:
        return list(_HOMES)

    def get_command(self, ctx: object, cmd_name: str):  # type: ignore[no-untyped-def]
        if cmd_name not in _HOMES:
            return None
        home = _HOMES[cmd_name]
        found = getattr(importlib.import_module(home.module), home.name)
        if isinstance(found, typer.Typer):
            command = typer.main.get_command(found)
        else:
            command = typer.main.get_command(commands.single(found))
        command.name = cmd_name
        self.running = command
        return command

    def format_commands(self, ctx: object, formatter) -> None:  # type: ignore[no-untyped-def]
        for group, homes in COMMANDS.items():
            with formatter.section(group):
                formatter.write_dl([(name, home.help) for name, home in homes.items()])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cache schedules for diffusion transformers: run, measure and evolve them.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ecad {__version__}")
        raise typer.Exit


@app.callback()
def ecad(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Cache schedules for diffusion transformers: run them, compute their cost, search for better ones."""


def main() -> None:
    """The `ecad` command."""
    commands.main(app)


if __name__ == "__main__":
    main()
