"""Pipelines that a description file is for, through every command: two denoisers, and pictures as inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described_pipelines import describe_flux, pictures, save_control, save_wan
from PIL import Image

import ecad
from ecad.genetic import Study
from ecad.schedules.provenance import provenance_of

# Each command loads and measures its pipeline.
pytestmark = pytest.mark.usefixtures("measured_once")
Run = Callable[..., tuple[int, str, str]]
PICTURES: dict[str, dict[str, Any]] = {
    "image-to-image": {"class": "FluxImg2ImgPipeline", "images": {"image": "fox.png"}, "call": {"strength": 0.6}},
    "inpainting": {
        "class": "FluxInpaintPipeline",
        "images": {"image": "fox.png", "mask_image": "mask.png"},
        "call": {"strength": 0.6},
    },
    "control": {"pipeline": "control", "images": {"control_image": "fox.png"}},
}


def describe(kind: str, flux: Path, steps: int = 6) -> str:
    """A description file in the present folder; `steps` are those of two denoisers."""
    if kind == "two denoisers":
        save_wan(Path())
        file = Path("wan22.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"steps": steps}))
        return file.name
    pictures(Path())
    if kind == "control":
        save_control(Path(), flux)
    describe_flux(Path(), "mine.json", **{"pipeline": str(flux), **PICTURES[kind]})
    return "mine.json"


def answer(found: tuple[int, str, str]) -> Any:
    code, out, said = found
    assert code == 0, said
    return json.loads(out)


def images(folder: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(Path(folder).rglob("*.png"))]


@pytest.mark.parametrize("kind", ["two denoisers", *PICTURES])
def test_commands_take_the_pipeline(run: Run, short_flux: Path, kind: str) -> None:
    file = describe(kind, short_flux)
    steps = json.loads(Path(file).read_text())["steps"]
    Path("prompts.txt").write_text("a fox\n")
    sites = ecad.get_image_generator(file, device="cpu")
    table = ecad.cost.macs_table(sites.architecture)
    for rows in (steps, 2 * steps):
        ecad.schedules.heuristics.every_n(table.sites, rows, 3).save(f"schedules/every_3_of_{rows}.json")
    schedule = f"schedules/every_3_of_{steps}.json"
    made = ("--prompt", "a fox", "--num-images-per-prompt", 1)
    assert run("infer", file, *made, "--output-dir", "bare")[0] == 0
    assert run("infer", file, *made, "--schedule", schedule, "--output-dir", "cached")[0] == 0
    [bare], [cached] = images("bare"), images("cached")
    assert bare.shape == cached.shape
    assert not np.array_equal(bare, cached)
    assert run("embed", "--image-generator", file, "-f", "prompts.txt", "-o", "embeddings")[0] == 0
    flags = ("--image-generator", file, "-i", "embeddings")
    assert run("generate", *flags, "-d", schedule, "-o", "generated", "--num-images-per-prompt", 1)[0] == 0
    # The same prompt and seed: the same image, whichever command makes it.
    np.testing.assert_array_equal(images("generated")[0], cached)
    [row] = answer(run("latency", *flags, "-d", schedule, "-b", 1, "-n", 1, "--json"))["schedules"]
    assert row["speedup"] > 0
    rows = answer(run("macs", "--image-generator", file, "-i", "schedules", "--json"))["schedules"]
    assert len(rows) == 2
    # Twice the rows run twice the forwards, uncached; image-to-image begins a row later or earlier by rounding.
    assert rows[0]["uncached_macs"] == pytest.approx(2 * rows[1]["uncached_macs"], rel=0.1)
    assert all(row["fewer"] > 1 for row in rows)


def test_two_denoisers_are_searched_on_workers_and_reported(run: Run, short_flux: Path) -> None:
    file = describe("two denoisers", short_flux, steps=4)
    Path("prompts.csv").write_text("id,prompt\n0,a fox\n1,an owl\n2,a pear\n")
    shutil.copy("prompts.csv", "prompts.dat")
    flags = ("--image-generator", file, "--num-prompts", 1, "--generations", 2, "--population-size", 4, "--json")
    ours = ("optimize", *flags, "--prompt-file", "prompts.dat", "--format", "csv")
    assert run(*ours, "-o", "here")[0] == 0
    found = answer(run(*ours, "-o", "there", "--workers", 2))
    here, there = Study.open("here"), Study.open("there")
    assert [(one.cost, one.quality) for one in here.candidates] == [(one.cost, one.quality) for one in there.candidates]
    assert found["workers"]
    best = ecad.CacheSchedule.load(sorted(Path("there/front").iterdir())[0])
    origin = provenance_of(best.attributes)
    assert origin is not None
    assert origin.denoiser == "WanTransformer3DModel + WanTransformer3DModel"
    exact = ("--schedule", sorted(Path("there/front").iterdir())[0], "--require-exact")
    assert run("infer", file, "--prompt", "x", "--num-images-per-prompt", 1, *exact)[0] == 0
    code, _, said = run("report", "here", "--images", 1)
    assert code == 0, said
    assert Path("here/report.html").exists()
    timed = ("--prompt-file", "prompts.csv", "--cost", "latency", "--generations", 1)
    assert answer(run("optimize", *flags, *timed, "-o", "timed"))["uncached_ns"] > 0
