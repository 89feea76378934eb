"""`ecad <job>`: every job as a subcommand."""

from __future__ import annotations

import typer

from ecad import commands, schedule_commands
from ecad.benchmark.generate_coco_embeddings import embed_coco
from ecad.benchmark.generate_embeddings import embed
from ecad.benchmark.generate_embeddings_parti import embed_parti
from ecad.benchmark.generate_images import generate
from ecad.benchmark.generate_mjhq_embeddings import embed_mjhq
from ecad.demo import demo
from ecad.genetic.optimize import optimize
from ecad.inference.inference import infer
from ecad.report.command import report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cache schedules for diffusion transformers: run them, price them, evolve them.",
)
app.command("demo")(demo)
app.command("embed")(embed)
app.command("embed-coco")(embed_coco)
app.command("embed-mjhq")(embed_mjhq)
app.command("embed-parti")(embed_parti)
app.command("generate")(generate)
app.command("infer")(infer)
app.command("optimize")(optimize)
app.command("report")(report)
app.add_typer(schedule_commands.app, name="schedule")


@app.command("models")
def models() -> None:
    """List the image generators and where each finds its weights."""
    from ecad.image_generators import image_generators

    for name, where in image_generators().items():
        typer.echo(f"{name:28} {where}")


def main() -> None:
    """The `ecad` command."""
    commands.main(app)


if __name__ == "__main__":
    main()
