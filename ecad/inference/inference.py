"""`ecad infer`: make images of a prompt or a file of prompts, under a schedule if one is given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from ecad.commands import Weights, bar, finish, main
from ecad.errors import EcadError
from ecad.files import make_folder, write_atomic
from ecad.prompts import Prompt, read_prompts


def infer(
    image_generator: Annotated[str, typer.Argument(help="Name of the image generator; `ecad models` lists them.")],
    prompt: Annotated[str | None, typer.Option(help="One prompt.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Prompts: one a line, or JSON.")] = None,
    schedule: Annotated[Path | None, typer.Option(help="Cache schedule to run under.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(min=1, help="Images of each prompt, one seed each.")] = 10,
    batch_size_generate: Annotated[int, typer.Option(min=1, help="Images made together.")] = 1,
    start_seed: Annotated[int, typer.Option(help="Seed of the first image.")] = 0,
    seed_step: Annotated[int, typer.Option(help="From one image's seed to the next.")] = 1,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; the generator's own by default.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; the generator's own by default.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Strength of the prompt.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Images go into its folder `images`.")] = Path("outputs"),
    weights: Weights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Make images of prompts."""
    if (prompt is None) == (prompt_file is None):
        raise EcadError("give either --prompt or --prompt-file")
    prompts = read_prompts(prompt_file) if prompt_file is not None else [Prompt("0000", str(prompt))]
    from ecad.image_generators import get_image_generator
    from ecad.schedules import CacheSchedule

    chosen = None if schedule is None else CacheSchedule.load(schedule)
    make_folder(output_dir / "images")
    generator = get_image_generator(image_generator, weights, device=device)
    embeds = generator.encode([p.text for p in prompts])
    seeds = [start_seed + seed_step * i for i in range(num_images_per_prompt)]
    items = [(index, seed) for index in range(len(prompts)) for seed in seeds]
    files = []
    for start in bar(range(0, len(items), batch_size_generate), "generating", hidden=as_json):
        batch = items[start : start + batch_size_generate]
        images = generator.generate(
            embeds[[index for index, _ in batch]],
            [seed for _, seed in batch],
            chosen,
            steps=None if chosen is None else chosen.num_steps,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
        )
        for (index, seed), image in zip(batch, images, strict=True):
            name = f"{index:04d}__prompt_seed-000__image_seed-{seed:03d}.png"
            files.append(output_dir / "images" / name)
            _write_png(files[-1], image)
    finish({"images": [str(file) for file in files]}, f"{len(files)} images in {output_dir / 'images'}", as_json)


def _write_png(path: Path, image: object) -> None:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")  # type: ignore[arg-type]
    write_atomic(path, content.getvalue())


if __name__ == "__main__":
    main(infer)
