"""Training images and captions of the built-in models: emoji in three styles on plain backgrounds.

Sources, pinned by version and checked by the integrity hash that npm publishes:
the images of Noto Emoji (Apache-2.0) and Twemoji (CC-BY-4.0) as packed by `emoji-datasource-*`, of Fluent
Emoji (MIT) as packed by `@lobehub/fluent-emoji-3d`, and the names of `emojibase-data` (MIT), joined by hexcode.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGES = {
    "google": (
        "emoji-datasource-google@16.0.0",
        "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    ),
    "twitter": (
        "emoji-datasource-twitter@16.0.0",
        "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    ),
    "3d": (
        "@lobehub/fluent-emoji-3d@1.1.0",
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
    "names": (
        "emojibase-data@17.0.0",
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
}
STYLES = ("google", "twitter", "3d")
BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (24, 24, 24),
    "gray": (128, 128, 128),
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (252, 222, 80),
    "green": (40, 160, 75),
    "blue": (40, 95, 215),
    "purple": (130, 65, 185),
    "pink": (247, 160, 200),
}
ANIMALS = """
monkey face, gorilla, dog face, wolf, fox, raccoon, cat face, lion, tiger face, horse face, unicorn, zebra, cow face,
pig face, ram, camel, llama, giraffe, elephant, rhinoceros, hippopotamus, mouse face, hamster, rabbit face, chipmunk,
hedgehog, bat, bear, koala, panda, sloth, skunk, kangaroo, turkey, rooster, baby chick, penguin, dove, eagle, duck,
swan, owl, flamingo, peacock, parrot, frog, crocodile, turtle, lizard, snake, dragon face, T-Rex, spouting whale,
dolphin, tropical fish, blowfish, shark, octopus, crab, lobster, squid, snail, butterfly, ant, honeybee, lady beetle,
spider, scorpion
"""
FOODS = """
grapes, melon, watermelon, tangerine, lemon, banana, pineapple, mango, red apple, green apple, pear, peach, cherries,
strawberry, kiwi fruit, tomato, coconut, avocado, eggplant, carrot, ear of corn, hot pepper, broccoli, garlic,
mushroom, croissant, pretzel, pancakes, cheese wedge, hamburger, french fries, pizza, hot dog, taco, egg, popcorn,
sushi, ice cream, doughnut, cookie, birthday cake, cupcake, lollipop, honey pot, beer mug, rose, sunflower, tulip,
cactus
"""
SIZE = 64


def names() -> list[str]:
    """The emoji that the model learns, with their names in emojibase without the word "face"."""
    return [short_name(label) for label in _labels()]


def short_name(label: str) -> str:
    """`cat face` -> `cat`."""
    return label.removesuffix(" face").lower()


def _labels() -> list[str]:
    return [" ".join(label.split()) for label in (ANIMALS + "," + FOODS).split(",")]


@dataclass(frozen=True)
class Sprite:
    """One emoji in one style: RGBA pixels, uint8, (64, 64, 4)."""

    name: str
    style: str
    pixels: np.ndarray


def fetch(folder: Path) -> dict[str, Path]:
    """Download the four npm packages into `folder` once; returns their paths. Raises ValueError on a wrong hash."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for key, (package, integrity) in PACKAGES.items():
        tarball = folder / f"{package.strip('@').replace('/', '-').replace('@', '-')}.tgz"
        if not tarball.exists():
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != integrity:
            raise ValueError(f"{tarball}: expected {integrity}, found sha512-{digest}; delete it and run again")
        found[key] = tarball
    return found


def load_sprites(folder: Path) -> list[Sprite]:
    """Every emoji in every style, sorted by name, then style: (names x styles) sprites of 64x64 RGBA pixels."""
    tarballs = fetch(folder)
    with tarfile.open(tarballs["names"]) as tar:
        entries = json.load(_member(tar, "package/en/data.json"))
    by_label = {entry["label"].lower(): entry["hexcode"].lower() for entry in entries}
    codes = {short_name(label): by_label[label.lower()] for label in _labels()}
    paths = {
        "google": "package/img/google/64/{}.png",
        "twitter": "package/img/twitter/64/{}.png",
        "3d": "package/assets/{}.webp",
    }
    sprites = []
    for style in STYLES:
        with tarfile.open(tarballs[style]) as tar:
            for name, code in codes.items():
                image = Image.open(_member(tar, paths[style].format(code), paths[style].format(f"{code}-fe0f")))
                pixels = np.asarray(image.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS))
                sprites.append(Sprite(name, style, pixels))
    order = {name: i for i, name in enumerate(codes)}
    return sorted(sprites, key=lambda s: (order[s.name], STYLES.index(s.style)))


def _member(tar: tarfile.TarFile, *paths: str) -> io.BytesIO:
    """The first of `paths` in the archive: some file names have the variation selector FE0F."""
    held = set(tar.getnames())
    path = next(path for path in paths if path in held)
    return io.BytesIO(tar.extractfile(path).read())  # type: ignore[union-attr]


def caption(name: str | None, style: str | None, background: str | None) -> str:
    """A caption such as `a 3d crab on a blue background`; parts that are None are omitted.

    >>> caption("crab", "3d", "blue"), caption("owl", "google", "orange"), caption("owl", None, None)
    ('a 3d crab on a blue background', 'a google owl on an orange background', 'an owl')
    """
    thing = " ".join(part for part in (style, name or "emoji") if part)
    text = f"{_article(thing)} {thing}"
    return text if background is None else f"{text} on {_article(background)} {background} background"


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" else "a"


def held_out(name: str, style: str, background: str) -> bool:
    """Whether a combination is held out: a tenth of all combinations is in no training image."""
    return zlib.crc32(f"{name}/{style}/{background}".encode()) % 10 == 0


def combinations(*, held: bool) -> list[tuple[str, str, str]]:
    """All (name, style, background) that are held out, or all that are not."""
    every = ((n, s, b) for n in names() for s in STYLES for b in BACKGROUNDS)
    return [combination for combination in every if held_out(*combination) == held]


def compose(
    sprite: Sprite,
    background: str,
    *,
    size: int = 54,
    shift: tuple[int, int] = (0, 0),
    flip: bool = False,
) -> np.ndarray:
    """The sprite scaled to `size` pixels, pasted `shift` off the centre of a plain background; uint8 (64, 64, 3)."""
    picture = Image.fromarray(sprite.pixels)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE), (*BACKGROUNDS[background], 255))
    corner = tuple((SIZE - size) // 2 + s for s in shift)
    canvas.alpha_composite(picture, corner)  # type: ignore[arg-type]
    return np.asarray(canvas.convert("RGB"))


def random_picture(sprite: Sprite, background: str, rng: np.random.Generator) -> np.ndarray:
    """One training image: the sprite at a random size, position and orientation; uint8 (64, 64, 3)."""
    size = int(rng.integers(50, 59))
    room = (SIZE - size) // 2
    shift = rng.integers(-min(room, 2), min(room, 2) + 1, 2)
    return compose(sprite, background, size=size, shift=(int(shift[0]), int(shift[1])), flip=bool(rng.integers(2)))


if __name__ == "__main__":
    from sys import argv

    sprites = load_sprites(Path(argv[1]))
    rows = [np.concatenate([compose(s, b) for b in BACKGROUNDS], 1) for s in sprites[:: len(sprites) // 12]]
    Image.fromarray(np.concatenate(rows)).save(argv[2])
    print(f"{len(names())} names, {len(sprites)} sprites, {len(combinations(held=True))} held-out combinations")
