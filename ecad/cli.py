"""`ecad <job>`: every job as a subcommand."""

from __future__ import annotations

import typer

from ecad.benchmark.compute_clip import clip
from ecad.benchmark.compute_fid import fid
from ecad.benchmark.compute_latency import latency
from ecad.benchmark.compute_macs import macs
from ecad.benchmark.generate_coco_embeddings import embed_coco
from ecad.benchmark.generate_embeddings import embed
from ecad.benchmark.generate_embeddings_parti import embed_parti
from ecad.benchmark.generate_images import generate
from ecad.benchmark.generate_mjhq_embeddings import embed_mjhq
from ecad.benchmark.score_images import score
from ecad.commands import main as commands
from ecad.commands import schedule as schedule_commands
from ecad.commands.calibrate import calibrate
from ecad.commands.demo import demo
from ecad.commands.fetch import fetch
from ecad.commands.models import models
from ecad.commands.optimize import optimize
from ecad.commands.report import report
from ecad.inference.inference import infer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cache schedules for diffusion transformers: run them, price them, evolve them.",
)
app.command("calibrate")(calibrate)
app.command("clip")(clip)
app.command("demo")(demo)
app.command("embed")(embed)
app.command("embed-coco")(embed_coco)
app.command("embed-mjhq")(embed_mjhq)
app.command("embed-parti")(embed_parti)
app.command("fid")(fid)
app.command("fetch")(fetch)
app.command("generate")(generate)
app.command("infer")(infer)
app.command("latency")(latency)
app.command("macs")(macs)
app.command("optimize")(optimize)
app.command("models")(models)
app.command("report")(report)
app.command("score")(score)
app.add_typer(schedule_commands.app, name="schedule")


def main() -> None:
    """The `ecad` command."""
    commands.main(app)


if __name__ == "__main__":
    main()
