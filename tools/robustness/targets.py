"""The files that `torture.py` and `fuzz.py` damage, and their readers.

A reader may accept a file, which must then survive a round trip through its writer, or reject it with one line.
Anything else (a traceback, a message of several lines, ten seconds of processor time) is a fault.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from round_trips import (
    import_from,
    make_features,
    make_flags,
    make_foreign,
    make_front,
    make_manifest,
    make_parquet,
    make_picture,
    make_pipeline,
    make_results,
    make_schedule,
    make_scores,
    make_statistics,
    make_store,
    make_study,
    make_study_settings,
    read_description,
    read_features,
    read_flags,
    read_front,
    read_manifest_file,
    read_pipeline,
    read_prompt_file,
    read_schedule,
    read_scores,
    read_store,
    read_study,
    read_study_settings,
    read_times,
    text,
)

from ecad.errors import EcadError
from ecad.genetic.study.layout import DATABASE, FLAGS, MEASURED, PICTURES
from ecad.genetic.study.results import read_measured, read_pictures
from ecad.images.files import content_digest, read_image
from ecad.images.folder import MANIFEST
from ecad.prompts.index import INDEX
from ecad.quality.fid import load_statistics
from ecad.report import Results
from ecad.report.comparison import comparison_page, read_comparison

LONGEST = 10  # limit of a reader in seconds of processor time, which a busy machine does not lengthen


class TooLong(BaseException):
    """A reader was stopped; no `except Exception` of a reader may take this for a damaged file."""


@dataclass(frozen=True)
class Target:
    """A file: its name in a folder, the function that writes the folder, and the function that reads the file."""

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], None]


def picture(name: str, image: Image.Image) -> Target:
    """An image of one format; whatever its bytes become, it is read as 8-bit pixels."""

    def read(folder: Path) -> None:
        content_digest(folder / name)
        found = read_image(folder / name)
        assert found.dtype == np.uint8
        assert found.shape[2:] == (3,)

    return Target(name, lambda folder: image.save(folder / name), read)


def picture_formats() -> dict[str, Target]:
    """An image of each further format that this Pillow writes and reads."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    names = {"avif": "AVIF", "bmp": "BMP", "dds": "DDS", "ico": "ICO", "jp2": "JPEG2000", "ppm": "PPM", "tga": "TGA"}
    names |= {"webp": "WEBP"}
    return {
        f"picture, {suffix}": picture(f"a.{suffix}", Image.fromarray(pixels))
        for suffix, name in names.items()
        if name in Image.SAVE
    }


TIMES = (
    '{"sites": [["0", "attn1"], ["0", "ff"]], "fixed_per_step": 2, "without_denoiser": 1, "per_site": [10, 100],'
    ' "readers": null}'
)
TIMES_BY_ROW = TIMES[:-1] + ', "active": [[1, 0], [1, 1]], "fixed_by_row": [5, 7]}'
DESCRIPTION = (
    '{"pipeline": "org/model", "class": "FluxImg2ImgPipeline", "steps": 20, "guidance_scale": 3.5, "height": 64,'
    ' "width": 64, "dtype": "float32", "call": {"strength": 0.6, "negative": [null]}, "images": {"image": "a.png",'
    ' "others": ["b.png", "c.png"]}}'
)
TARGETS = {
    "schedule": Target("a.json", make_schedule, read_schedule),
    "smoothcache": Target(
        "a.json", text("a.json", '{"attn1": [1, 0, 1], "ff-0": [1, 1, 0]}'), import_from("smoothcache")
    ),
    "step mask": Target("a.json", text("a.json", "[1, 1, 0, 1, 0]"), import_from("step-mask")),
    "step mask, bins": Target(
        "a.json", text("a.json", '{"compute_bins": [3, 1], "cache_bins": [1, 2]}'), import_from("step-mask")
    ),
    "list of steps": Target("a.json", text("a.json", "[0, 3, 6]"), import_from("steps", 8)),
    "prompts.json": Target("p.json", text("p.json", '[{"id": "a", "prompt": "b"}, "c"]'), read_prompt_file("p.json")),
    "prompts.mjhq": Target(
        "p.json", text("p.json", '{"a": {"category": "art", "prompt": "b"}}'), read_prompt_file("p.json")
    ),
    "prompts.tsv": Target("p.tsv", text("p.tsv", "Prompt\tCategory\na\tb\nc\td\n"), read_prompt_file("p.tsv")),
    "prompts.jsonl": Target(
        "p.jsonl", text("p.jsonl", '{"id": "a", "prompt": "b"}\n"c"\n{"text": "d"}\n'), read_prompt_file("p.jsonl")
    ),
    "prompts.csv": Target(
        "p.csv", text("p.csv", 'id,Prompt,Category\n7,"a fox, red",b\nx,a "car,\n'), read_prompt_file("p.csv")
    ),
    "prompts.parquet": Target("p.parquet", make_parquet, read_prompt_file("p.parquet")),
    "prompts.txt": Target("p.txt", text("p.txt", "a fox\n\nan owl\n"), read_prompt_file("p.txt")),
    "embeddings' index": Target(INDEX, make_store, read_store),
    "embeddings": Target("00000.safetensors", make_store, read_store),
    "manifest": Target(MANIFEST, make_manifest, read_manifest_file),
    "picture": Target("a.png", make_picture, lambda folder: read_image(folder / "a.png") is None),
    "picture, 16 bits": picture("a.png", Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000)),
    "picture, tiff": picture("a.tif", Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000)),
    "picture, palette": picture("a.gif", Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")),
    "picture, alpha": picture("a.png", Image.fromarray(np.arange(64, dtype=np.uint8).reshape(4, 4, 4))),
    "picture, jpeg": picture("a.jpg", Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))),
    **picture_formats(),
    "results": Target("results.json", make_results, lambda folder: Results.load(folder) is None),
    "study": Target(DATABASE, make_study, read_study),
    "study's settings": Target("settings.json", make_study_settings, read_study_settings),
    "flags": Target(FLAGS, make_flags, read_flags),
    "front": Target("front.json", make_front, read_front),
    "description": Target("a.json", text("a.json", DESCRIPTION), read_description),
    "times": Target("times.json", text("times.json", TIMES), read_times),
    "times, by row": Target("times.json", text("times.json", TIMES_BY_ROW), read_times),
    "pipeline": Target("model_index.json", make_pipeline, read_pipeline),
    "measured": Target(
        MEASURED,
        text(MEASURED, '{"device": "cpu", "speedups": {"a": 1.5}}'),
        lambda folder: read_measured(folder) and None,
    ),
    "pictures": Target(
        str(PICTURES),
        text(str(PICTURES), '[{"prompt": "a", "seed": 1}]'),
        lambda folder: read_pictures(folder) and None,
    ),
    "first embeddings": Target("0000__prompt_id-a__prompt_seed-000.pt", make_foreign, read_store),
    "scores": Target("scores.json", make_scores, read_scores),
    "scores, compared": Target(
        "scores.json", make_scores, lambda folder: comparison_page(read_comparison(folder), "x") is None
    ),
    "scores' journal": Target(".scores.json.unfinished", partial(make_scores, finished=False), read_scores),
    "statistics": Target("a.npz", make_statistics, lambda folder: load_statistics(str(folder / "a.npz")) is None),
    "features": Target("cache/kept.npy", make_features, read_features),
}


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong(f"more than {seconds} s")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def outcome(read: Callable[[Path], None], folder: Path) -> tuple[str, str]:
    """ "accepted", "refused" or "fault", and the message."""
    try:
        with time_limit(LONGEST):
            read(folder)
    except EcadError as error:
        said = str(error)
        return ("refused", said) if said and "\n" not in said and said.isprintable() else ("fault", f"says {said!r}")
    except (Exception, TooLong) as error:
        return "fault", f"{type(error).__name__}: {error}"
    return "accepted", ""
