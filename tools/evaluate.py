"""Evaluate a built-in model on held-out combinations and draw its contact sheet.

python tools/evaluate.py build        # prints a table; writes docs/builtin-model.json and docs/images/contact-sheet.png
python tools/evaluate.py build --generator EmojiFluxImageGenerator    # builtin-flux.json, contact-sheet-flux.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.quality import Judge, mean_interval
from ecad.schedules import CacheSchedule, heuristics
from ecad.utils.files import write_atomic
from emoji_data import BACKGROUNDS, STYLES, caption, combinations, compose, load_sprites, names

DOCS = Path(__file__).parent.parent / "docs"
BATCH = 12
FILES = {
    "EmojiImageGenerator": ("builtin-model.json", "contact-sheet.png"),
    "EmojiFluxImageGenerator": ("builtin-flux.json", "contact-sheet-flux.png"),
}
Combination = tuple[str, str, str]


def generate(generator: ImageGenerator, prompts: list[str], schedule: CacheSchedule | None, label: str) -> np.ndarray:
    """One image per prompt with the prompt's index as its seed; uint8 (prompts, 64, 64, 3)."""
    batches = []
    for start in track(range(0, len(prompts), BATCH), label):
        embeds = generator.encode(prompts[start : start + BATCH])
        batches.append(generator.generate(embeds, range(start, start + len(embeds)), schedule))
    return np.concatenate(batches)


def retrieval(judge: Judge, images: np.ndarray, truth: list[Combination]) -> dict[str, float]:
    """Fraction of images whose name, style or background the judge ranks first, all else in the caption being right."""
    choices = {"name": names(), "style": list(STYLES), "background": list(BACKGROUNDS)}
    seen = judge.embed_images(images)
    shares = {}
    for part, (kind, values) in enumerate(choices.items()):
        right = 0
        for row, parts in zip(seen, truth, strict=True):
            texts = [caption(*(*parts[:part], value, *parts[part + 1 :])) for value in values]
            right += values[int((embed(judge, texts) @ row).argmax())] == parts[part]
        shares[kind] = right / len(truth)
    return shares


_EMBEDDED: dict[str, torch.Tensor] = {}


def embed(judge: Judge, texts: list[str]) -> torch.Tensor:
    """Text vectors, each computed once."""
    missing = [text for text in texts if text not in _EMBEDDED]
    if missing:
        _EMBEDDED.update(zip(missing, judge.embed_texts(missing), strict=True))
    return torch.stack([_EMBEDDED[text] for text in texts])


def contact_sheet(images: np.ndarray, columns: int = 18) -> Image.Image:
    """The first images side by side."""
    rows = len(images) // columns
    grid = images[: rows * columns].reshape(rows, columns, *images.shape[1:])
    return Image.fromarray(
        np.concatenate(np.concatenate(list(grid), 1), 1)
        if rows == 1
        else np.concatenate([np.concatenate(list(row), 1) for row in grid])
    )


def main(folder: Path, name: str, count: int) -> None:
    """Print and write every number that docs/builtin-model.md quotes."""
    rng = np.random.default_rng(5)
    truth = [combinations(held=True)[i] for i in rng.permutation(len(combinations(held=True)))[:count]]
    prompts = [caption(*parts) for parts in truth]
    sprites = {(s.name, s.style): s for s in load_sprites(folder / "npm")}
    judge, generator = Judge(), get_image_generator(name, device="cpu")
    real = np.stack([compose(sprites[n, s], b) for n, s, b in truth])
    sites = problem_of(generator).template.sites
    schedules = {"uncached": None} | {f"every-{n}": heuristics.every_n(sites, generator.steps, n) for n in (2, 3, 4, 8)}
    images = {name: generate(generator, prompts, schedule, name) for name, schedule in schedules.items()}
    scores = {name: judge.score(pictures, prompts) for name, pictures in images.items()}
    result = {
        "held_out_combinations": len(truth),
        "real": retrieval(judge, real, truth),
        "generated": retrieval(judge, images["uncached"], truth),
        "judge": {
            name: {
                "mean": float(s.mean()),
                "interval95": mean_interval(s),
                "fall_from_uncached": float((scores["uncached"] - s).mean()),
                "fall_interval95": mean_interval(scores["uncached"] - s),
            }
            for name, s in scores.items()
        }
        | {"real": {"mean": float(judge.score(real, prompts).mean())}},
    }
    print(json.dumps(result, indent=1))
    file, sheet = FILES[name]
    write_atomic(DOCS / file, json.dumps(result, indent=1) + "\n")
    (DOCS / "images").mkdir(parents=True, exist_ok=True)
    contact_sheet(images["uncached"]).save(DOCS / "images" / sheet)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generator", default="EmojiImageGenerator", choices=FILES)
    parser.add_argument("--count", type=int, default=324)
    args = parser.parse_args()
    main(args.folder, args.generator, args.count)
