"""Evaluate the built-in video model on held-out pictures and draw its contact sheet.

python tools/evaluate_video.py build    # prints a table; writes docs/builtin-video.json and contact-sheet-video.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ecad.cost.macs import macs_table
from ecad.image_generators import get_image_generator
from ecad.quality import Judge, mean_interval
from ecad.quality.video import frames_of_strip
from ecad.schedules import heuristics
from ecad.utils.files import write_atomic
from emoji_data import BACKGROUNDS, names
from evaluate import DOCS, embed, generate
from video_data import FRAMES, OPPOSITES, STYLE, render, video_caption, video_combinations, video_sprites

Combination = tuple[str, str, str]
SHOWN = 12
# What a movement changes from the first frame to the last: pixels right, pixels down, logarithm of the side.
CHANGES = {
    "moving right": (22, 0, 0),
    "moving left": (-22, 0, 0),
    "moving down": (0, 22, 0),
    "moving up": (0, -22, 0),
    "growing": (0, 0, 0.64),
    "shrinking": (0, 0, -0.64),
    "turning": (0, 0, 0),
}


def real_clip(sprites: dict[str, object], name: str, background: str, movement: str) -> np.ndarray:
    """The clip that a caption describes, at the middle of the sizes and positions of training."""
    rendered = movement if movement in OPPOSITES else next(k for k, v in OPPOSITES.items() if v == movement)
    clip = render(sprites[name], background, rendered, 40, (0, 0))  # type: ignore[arg-type]
    return clip if rendered == movement else clip[::-1]


def movement_of(clip: np.ndarray, background: str) -> str:
    """The movement of `CHANGES` that is nearest to how centre and size of what is no background change."""
    seen = np.abs(clip.astype(int) - BACKGROUNDS[background]).max(axis=3) > 48
    first, last = _centre_and_size(seen[0]), _centre_and_size(seen[-1])
    found = (last - first) / (22, 22, 0.64)
    away = {name: np.abs(found - np.divide(change, (22, 22, 0.64))).sum() for name, change in CHANGES.items()}
    return min(away, key=lambda name: float(away[name]))


def _centre_and_size(seen: np.ndarray) -> np.ndarray:
    """Centre in pixels (x, y), and the logarithm of the side of a square of the same area."""
    y, x = np.nonzero(seen)
    if not len(x):
        return np.zeros(3)
    return np.array([x.mean(), y.mean(), np.log(len(x)) / 2])


def shares(judge: Judge, clips: np.ndarray, truth: list[Combination]) -> dict[str, object]:
    """Fraction of frames whose name (of all emoji) and background the judge ranks first, and of clips that move so.

    Args:
        judge: Scores images.
        clips: uint8 (clips, FRAMES, 64, 64, 3).
        truth: What each shows.
    """
    seen = judge.embed_images(clips.reshape(-1, *clips.shape[2:])).unflatten(0, clips.shape[:2])
    name_right, background_right = np.zeros((2, *clips.shape[:2]), bool)
    for row, (name, background, _) in enumerate(truth):
        every = names()
        texts = [video_caption(one, background, None) for one in every]
        name_right[row] = (embed(judge, texts) @ seen[row].T).argmax(0).numpy() == every.index(name)
        texts = [video_caption(name, one, None) for one in BACKGROUNDS]
        background_right[row] = (embed(judge, texts) @ seen[row].T).argmax(0).numpy() == list(BACKGROUNDS).index(
            background
        )
    moves = [movement_of(clip, parts[1]) == parts[2] for clip, parts in zip(clips, truth, strict=True)]
    return {
        "name": float(name_right.mean()),
        "name_by_frame": name_right.mean(axis=0).tolist(),
        "background": float(background_right.mean()),
        "movement": float(np.mean(moves)),
    }


def sheet(clips: np.ndarray, columns: int = 3) -> Image.Image:
    """Each clip as a row of frames; the rows in columns with a white line between them."""
    rows = np.concatenate(list(clips.transpose(1, 0, 2, 3, 4)), axis=2)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, 8), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate([np.concatenate(list(rows[i::columns])) for i in range(columns)], axis=1))


def main(folder: Path, count: int) -> None:
    """Print and write every number on the video model that docs/builtin-model.md quotes."""
    rng = np.random.default_rng(7)
    every = video_combinations(held=True)
    truth = [every[i] for i in rng.permutation(len(every))[:count]]
    texts = [video_caption(*parts) for parts in truth]
    stills = [video_caption(name, background, None) for name, background, _ in truth for _ in range(FRAMES)]
    sprites = {sprite.name: sprite for sprite in video_sprites(folder / "npm")}
    judge, generator = Judge(), get_image_generator("EmojiVideoGenerator", device="cpu")
    sites = macs_table(generator.architecture).sites
    schedules = {"uncached": None} | {f"every-{n}": heuristics.every_n(sites, generator.steps, n) for n in (2, 3, 4)}
    clips = {"real": np.stack([real_clip(sprites, *parts) for parts in truth])}
    for name, schedule in schedules.items():
        strips = generate(generator, texts, schedule, name)
        clips[name] = np.stack([frames_of_strip(strip, FRAMES) for strip in strips])
    result: dict[str, object] = {"held_out_clips": len(truth), "style": STYLE}
    scores = {k: judge.score(v.reshape(-1, *v.shape[2:]), stills).reshape(-1, FRAMES) for k, v in clips.items()}
    for name, found in clips.items():
        own = scores[name].mean(axis=1)
        drop = scores["uncached"].mean(axis=1) - own
        result[name] = shares(judge, found, truth) | {
            "judge": float(own.mean()),
            "interval95": mean_interval(own),
            "judge_by_frame": scores[name].mean(axis=0).tolist(),
            "fall_from_uncached": float(drop.mean()),
            "fall_interval95": mean_interval(drop),
        }
    print(json.dumps(result, indent=1))
    write_atomic(DOCS / "builtin-video.json", json.dumps(result, indent=1) + "\n")
    sheet(clips["uncached"][:SHOWN]).save(DOCS / "images" / "contact-sheet-video.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=168)
    args = parser.parse_args()
    main(args.folder, args.count)
