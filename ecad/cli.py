"""`ecad <job>`: every job as a subcommand."""

from __future__ import annotations

import typer

from ecad import commands, schedule_commands
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
from ecad.demo import demo
from ecad.fetch_command import fetch
from ecad.genetic.optimize import optimize
from ecad.inference.inference import infer
from ecad.models import models
from ecad.report.command import report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cache schedules for diffusion transformers: run them, price them, evolve them.",
)
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
