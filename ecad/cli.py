"""`ecad <job>`: every job as a subcommand."""

from __future__ import annotations

import typer

from ecad import commands
from ecad.inference.inference import infer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cache schedules for diffusion transformers: run them, price them, evolve them.",
)
app.command("infer")(infer)


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
