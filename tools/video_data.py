"""Training clips and captions of the built-in video model: the emoji of the image models, moving."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from emoji_data import BACKGROUNDS, SIZE, Sprite, caption, held_out, load_sprites, names

FRAMES = 8
STYLE = "twitter"
# A movement is rendered in one direction; its opposite is the same clip, played backwards.
OPPOSITES = {"moving right": "moving left", "moving down": "moving up", "growing": "shrinking", "turning": None}
MOVEMENTS = tuple(word for pair in OPPOSITES.items() for word in pair if word is not None)
_OVERSAMPLING = 2


def video_names() -> list[str]:
    """The emoji of the video model: every fourth of the image model's.

    >>> len(video_names()), video_names()[0]
    (30, 'monkey')
    """
    return names()[::4]


def video_caption(name: str | None, background: str | None, movement: str | None) -> str:
    """A caption; parts that are None are omitted.

    >>> video_caption("crab", "blue", "moving left")
    'a twitter crab on a blue background moving left'
    """
    text = caption(name, STYLE, background)
    return text if movement is None else f"{text} {movement}"


def video_combinations(*, held: bool) -> list[tuple[str, str, str]]:
    """All (name, background, movement) whose picture is held out, or all whose picture is not."""
    return [
        (name, background, movement)
        for name in video_names()
        for background in BACKGROUNDS
        for movement in MOVEMENTS
        if held_out(name, STYLE, background) == held
    ]


def video_sprites(folder: object) -> list[Sprite]:
    """The pictures of `video_names`, in their order; `folder` is that of the npm packages."""
    wanted = video_names()
    return [s for s in load_sprites(folder) if s.style == STYLE and s.name in wanted]  # type: ignore[arg-type]


def render(sprite: Sprite, background: str, movement: str, size: float, offset: tuple[float, float]) -> np.ndarray:
    """A clip of one movement.

    Args:
        sprite: The picture.
        background: Its background's name.
        movement: A key of `OPPOSITES`.
        size: Side of the picture in pixels, at the middle of the clip.
        offset: Where its centre is off the frame's, in pixels, at the middle of the clip.

    Returns:
        uint8 (FRAMES, 64, 64, 3).
    """
    frames = []
    for time in np.linspace(-1, 1, FRAMES):
        x, y, side, angle = *offset, size, 0.0
        if movement == "moving right":
            x += 11 * time
        elif movement == "moving down":
            y += 11 * time
        elif movement == "growing":
            side *= math.exp(0.32 * time)
        else:
            angle = 45 * (time + 1)
        frames.append(_placed(sprite, background, (x, y), side, angle))
    return np.stack(frames)


def _placed(sprite: Sprite, background: str, at: tuple[float, float], side: float, angle: float) -> np.ndarray:
    """The sprite, `side` pixels wide, turned clockwise by `angle` degrees, `at` off the centre; uint8 (64, 64, 3)."""
    fine = SIZE * _OVERSAMPLING
    scale = SIZE / (side * _OVERSAMPLING)
    cos, sin = math.cos(math.radians(angle)) * scale, math.sin(math.radians(angle)) * scale
    x, y = (fine / 2 + _OVERSAMPLING * shift for shift in at)
    # The matrix takes a pixel of the frame to its place in the sprite.
    matrix = (cos, sin, SIZE / 2 - cos * x - sin * y, -sin, cos, SIZE / 2 + sin * x - cos * y)
    picture = Image.fromarray(sprite.pixels).transform(
        (fine, fine), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    canvas = Image.new("RGBA", (SIZE, SIZE), (*BACKGROUNDS[background], 255))
    canvas.alpha_composite(picture.resize((SIZE, SIZE), Image.Resampling.BOX))
    return np.asarray(canvas.convert("RGB"))


def random_clip(sprite: Sprite, background: str, movement: str, rng: np.random.Generator) -> np.ndarray:
    """One training clip, at a random size and position; uint8 (FRAMES, 64, 64, 3)."""
    x, y = rng.uniform(-2, 2, 2)
    return render(sprite, background, movement, rng.uniform(37, 43), (x, y))
