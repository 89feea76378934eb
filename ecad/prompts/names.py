"""The names of image files: written without colons, read in this project's format and the paper's release's."""

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
    """The prefix of the files of one prompt.

    Args:
        place: index of the prompt in its file, from 0.
        prompt_id: the prompt's id, if it is not the index; characters that some file systems reject become `%XX`.
        prompt_seed: the prompt's part of the noise seed.

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
    """`prompt_stem` of MJHQ, whose files are named by the id alone.

    >>> mjhq_stem("bdb6b3c0")
    'bdb6b3c0'
    """
    return as_file_name(prompt_id)


def image_stem(prompt_stem: str, image_seed: int | None) -> str:
    """The name of an image without its suffix. With `image_seed` None, the name has no seed: one image per prompt.

    >>> image_stem(prompt_stem(3), 4)
    '0003__prompt_seed-000__image_seed-004'
    """
    return prompt_stem if image_seed is None else f"{prompt_stem}__image_seed-{image_seed:03d}"


def without_colons(stem: str) -> str:
    """The name of a published file in this project's format.

    >>> without_colons("003__prompt_id:a:b__prompt_seed:000")
    '003__prompt_id-a%3Ab__prompt_seed-000'
    """
    if (named := _NAMED.match(stem)) and named["mark"] == ":":
        stem = f"{stem[: named.start('id') - 1]}-{as_file_name(named['id'])}{stem[named.end('id') :]}"
    return stem.replace(":", "-")


def prompt_key(stem: str, mode: NamingMode) -> int | str | None:
    """The prompt of an image: its index in the file from 0, its id, or None if the name does not fit the mode.

    Args:
        stem: name of the image without its suffix, with or without colons.
        mode: naming mode of the image.

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
    # The id of a prompt without one is its index, four digits: see `read_prompts`.
    numbered = _NUMBERED["parti"].match(stem)
    return f"{int(numbered[1]):04d}" if numbered else None


def match_images(
    files: Iterable[str | os.PathLike[str]], prompts: Iterable[Prompt], mode: NamingMode
) -> tuple[list[tuple[Path, Prompt]], list[Path]]:
    """Match images with their prompts.

    Args:
        files: images.
        prompts: all prompts of one file, in order; only those of the images stay in memory.
        mode: naming mode of the images.

    Returns:
        pairs of image and prompt, and the images without a prompt.

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
