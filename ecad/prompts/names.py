"""The names of image files: written without a colon, read as this project and the method's first release write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote

from ecad.errors import EcadError
from ecad.prompts.files import Prompt
from ecad.utils.files import as_file_name

NamingMode = Literal["image_reward", "parti", "toca", "mjhq", "coco"]

_SEEDS = r"(?:__prompt_seed[:-]-?\d+)?(?:__image_seed[:-]-?\d+)?$"
_NAMED = re.compile(r"^\d+__prompt_id(?P<mark>[:-])(?P<id>.+?)" + _SEEDS)
_NUMBERED = {
    "parti": re.compile(r"^(\d+)(?:__|$)"),
    "toca": re.compile(r"^(\d+)(?:__|$)"),
    "coco": re.compile(r"^(\d+)"),
}


def prompt_stem(place: int, prompt_id: str | None = None, prompt_seed: int = 0) -> str:
    """What the files of one prompt begin with.

    Args:
        place: of the prompt in its file, from 0.
        prompt_id: its id, if it has one beside its place; characters that some file system refuses become `%XX`.
        prompt_seed: the prompt's own part of the noise's seed.

    Raises:
        EcadError: the id is too long for a file name.

    >>> prompt_stem(3, "005695-0057")
    '0003__prompt_id-005695-0057__prompt_seed-000'
    >>> prompt_stem(3)
    '0003__prompt_seed-000'
    """
    number = f"{place:04d}"
    named = "" if prompt_id in (None, number) else f"__prompt_id-{as_file_name(str(prompt_id))}"
    return f"{number}{named}__prompt_seed-{prompt_seed:03d}"


def mjhq_stem(prompt_id: str) -> str:
    """`prompt_stem` of MJHQ, where files go by the id alone.

    >>> mjhq_stem("bdb6b3c0")
    'bdb6b3c0'
    """
    return as_file_name(prompt_id)


def image_stem(prompt_stem: str, image_seed: int | None) -> str:
    """The name of one image without its suffix; no seed stands in it where each prompt has one image only.

    >>> image_stem(prompt_stem(3), 4)
    '0003__prompt_seed-000__image_seed-004'
    """
    return prompt_stem if image_seed is None else f"{prompt_stem}__image_seed-{image_seed:03d}"


def without_colons(stem: str) -> str:
    """The name of a published file as it is written here.

    >>> without_colons("003__prompt_id:a:b__prompt_seed:000")
    '003__prompt_id-a%3Ab__prompt_seed-000'
    """
    if (named := _NAMED.match(stem)) and named["mark"] == ":":
        stem = f"{stem[: named.start('id') - 1]}-{as_file_name(named['id'])}{stem[named.end('id') :]}"
    return stem.replace(":", "-")


def prompt_key(stem: str, mode: NamingMode) -> int | str | None:
    """Which prompt an image is of: its place in the file from 0, its id, or None where the name is not of the mode.

    Args:
        stem: name of the image without its suffix, with or without colons.
        mode: how it was named.

    Raises:
        EcadError: the mode is unknown.

    >>> prompt_key("003__prompt_id:005695-0057__prompt_seed:000__image_seed:004", "image_reward")
    '005695-0057'
    >>> prompt_key("0003__prompt_seed-000__image_seed-004", "parti")
    3
    """
    if mode not in get_args(NamingMode):
        raise EcadError(f"image naming mode {mode!r} is unknown: expected one of {', '.join(get_args(NamingMode))}")
    if mode in _NUMBERED:
        numbered = _NUMBERED[mode].match(stem)
        return int(numbered[1]) if numbered else None
    if mode == "mjhq":
        return unquote(re.sub(_SEEDS, "", stem, count=1))
    if named := _NAMED.match(stem):
        return unquote(named["id"]) if named["mark"] == "-" else named["id"]
    # A prompt without an id goes by its place, four digits: see `read_prompts`.
    numbered = _NUMBERED["parti"].match(stem)
    return f"{int(numbered[1]):04d}" if numbered else None


def match_images(
    files: Iterable[str | os.PathLike[str]], prompts: Iterable[Prompt], mode: NamingMode
) -> tuple[list[tuple[Path, Prompt]], list[Path]]:
    """Which image is of which prompt.

    Args:
        files: images.
        prompts: all prompts of one file, in its order; of them only those of the images are kept in memory.
        mode: how the images were named.

    Returns:
        the images that belong to a prompt, each with it; and those that belong to none.

    Raises:
        EcadError: the mode is unknown.

    >>> match_images(["0000__image_seed-004.png", "x.png"], [Prompt("0000", "a fox")], "toca")
    ([(PosixPath('0000__image_seed-004.png'), Prompt(id='0000', text='a fox'...))], [PosixPath('x.png')])
    """
    keys = {path: prompt_key(path.stem, mode) for path in map(Path, files)}
    wanted = {key for key in keys.values() if key is not None}
    known: dict[int | str | None, Prompt] = {}
    for place, prompt in enumerate(prompts):
        known |= {key: prompt for key in (place, prompt.id) if key in wanted}
    matched = [(path, known[key]) for path, key in keys.items() if key in known]
    unmatched = [path for path, key in keys.items() if key not in known]
    return matched, unmatched
