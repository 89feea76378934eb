"""The files that `torture.py` and `fuzz.py` damage, and their readers.

A reader may accept a file, which must then survive a round trip through its writer, or reject it with one line.
Anything else (a traceback, a message of several lines, ten seconds) is a fault.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import torch
import typer
from PIL import Image
from pyarrow import parquet

from ecad.commands.optimize import optimize
from ecad.commands.resume import recall, remember
from ecad.cost.table import CostTable
from ecad.errors import EcadError
from ecad.genetic.study.layout import DATABASE, FLAGS, MEASURED, PICTURES
from ecad.genetic.study.results import read_measured, read_pictures
from ecad.genetic.study.store import Store
from ecad.image_generators.description import Description, describe
from ecad.images.files import content_digest, read_image
from ecad.images.folder import MANIFEST, begin_folder, read_manifest
from ecad.jobs.encode import by_category, numbered
from ecad.jobs.score import FolderScores, Item, score_folder
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.index import INDEX, Entry
from ecad.prompts.store import find_stored, load_stored, write_store
from ecad.quality.features import FeatureExtractor, folder_features
from ecad.quality.fid import load_statistics
from ecad.quality.scorers import Scorer
from ecad.report import Results
from ecad.report.comparison import comparison_page, read_comparison
from ecad.schedules import CacheSchedule, heuristics, importers, pixart_sites
from ecad.schedules.front import Front, Point
from ecad.schedules.provenance import KEY, Interval
from ecad.schedules.sharing import card
from ecad.utils.files import parse_json

LONGEST = 10  # time limit of a reader in seconds


@dataclass(frozen=True)
class Target:
    """A file: its name in a folder, the function that writes the folder, and the function that reads the file."""

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], None]


def make_schedule(folder: Path) -> None:
    origin = {"denoiser": "D", "layout": "1", "configuration": "2", "latents": [4, 8, 8], "search": {"mode": "fast"}}
    origin |= {"held_out": {"psnr": {"mean": 1.0, "low": 0.0, "high": 2.0}}, "versions": {"ecad": "1"}}
    metrics = {"total_macs": 5, "latency": {"speedup": 2.0, "gpu": "x"}}
    schedule = heuristics.every_n(pixart_sites(2), 4, 2)
    products = np.minimum.outer(np.arange(4.0), np.arange(4.0)) + 1
    schedule = schedule.replace(forecast=True, output_products=products)
    schedule = schedule.replace(config={"height": 256}, metrics=metrics, attributes={KEY: origin})
    schedule.save(folder / "a.json")


def read_schedule(folder: Path) -> None:
    schedule = CacheSchedule.load(folder / "a.json")
    assert all(line.isprintable() for line in card(schedule).split("\n"))
    assert CacheSchedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def text(name: str, content: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return make


def read_prompt_file(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        found = read_prompts(folder / name)
        assert found
        assert all(isinstance(prompt.text, str) and prompt.text.strip() and prompt.id for prompt in found)
        for entries in ([(".", numbered(found))], by_category(found)):
            for category, rows in entries:
                for entry in rows:
                    inside(folder, f"{category}/{entry.stem}.png")
                    entry.prompt.text.encode()

    return read


def make_parquet(folder: Path) -> None:
    columns = {"prompt": ["a red fox", "a car"], "id": ["7", "x"], "category": ["a", None]}
    parquet.write_table(pyarrow.table(columns), folder / "p.parquet")


def import_smoothcache(folder: Path) -> None:
    importers.from_text("smoothcache", (folder / "a.json").read_text(errors="replace"), pixart_sites(2), None)


def make_store(folder: Path) -> None:
    entries = [Entry(f"000{i}", Prompt(f"000{i}", f"prompt {i}")) for i in range(3)]
    encode = lambda texts: PromptEmbeds(tuple(torch.ones(2, 4) for _ in texts), negative=torch.zeros(2, 4))  # noqa: E731
    list(write_store(folder, entries, encode, {"image_generator": "x"}, 2))


def read_store(folder: Path) -> None:
    for stored in find_stored(folder).values():
        load_stored(stored)
        for one in stored:
            inside(folder, f"{one.entry.stem}.png")


def make_manifest(folder: Path) -> None:
    rows = [("0000.png", {"prompt": "a fox"}), ("sub/1.png", {"prompt": "b"})]
    begin_folder(folder, {"a": 1, "parts": {"vae": "12ab"}}, rows, folder, made_with={"torch": "2.9"})


def read_manifest_file(folder: Path) -> None:
    for name in read_manifest(folder)[1]:
        inside(folder, name)
    # Resuming a folder rewrites its manifest, which must then read the same.
    before = read_manifest(folder)
    begin_folder(folder, before[0], [], folder, made_with={"torch": "2.9"})
    assert read_manifest(folder) == before


def inside(folder: Path, name: str) -> None:
    assert (folder / name).resolve().is_relative_to(folder.resolve()), f"{name!r} leaves the folder"


def make_picture(folder: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(folder / "a.png")


def picture(name: str, image: Image.Image) -> Target:
    """An image of one format; whatever its bytes become, it is read as 8-bit pixels."""

    def read(folder: Path) -> None:
        content_digest(folder / name)
        found = read_image(folder / name)
        assert found.dtype == np.uint8
        assert found.shape[2:] == (3,)

    return Target(name, lambda folder: image.save(folder / name), read)


def make_results(folder: Path) -> None:
    Results("t", "g", (), (), "psnr").save(folder)


def make_study(folder: Path) -> None:
    with Store.open(folder) as store:
        store.ensure_settings({"scorer": "psnr"}, {"ecad": "0"})


def read_study(folder: Path) -> None:
    with Store.read(folder) as store:
        store.settings(), store.versions(), store.candidates(), store.generations()


def make_foreign(folder: Path) -> None:
    content = {"prompt_embeds": torch.ones(1, 3, 4), "prompt_attention_mask": torch.tensor([[1, 1, 0]])}
    torch.save(content, folder / "0000__prompt_id-a__prompt_seed-000.pt")


SCORER = Scorer("stub", "1", False, lambda images, prompts, references: np.ones(len(images)))


def items(folder: Path) -> list[Item]:
    return [Item(folder / "0000.png", Prompt("0000", "a fox"))]


def make_scores(folder: Path, finished: bool = True) -> None:
    if finished:
        begin_folder(folder, {}, [("0000.png", {"prompt": "a fox"})], folder)
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(folder / "0000.png")
    scores = FolderScores(folder, items(folder), SCORER, folder / "scores.json")
    scores.keep(items(folder), [1.0])
    if finished:
        scores.finish()


def read_scores(folder: Path) -> None:
    copy = {file: file.read_bytes() for file in folder.glob(".scores*")}
    score_folder(folder, items(folder), SCORER, folder / "scores.json")
    for file, content in copy.items():
        (folder / "scores.json").unlink()
        file.write_bytes(content)


def make_statistics(folder: Path) -> None:
    np.savez(folder / "a.npz", mu=np.zeros(2), sigma=np.eye(2), feats=np.zeros((3, 2)))


def read_features(folder: Path) -> None:
    """A damaged cache file is written again."""
    (folder / "a.png").exists() or make_picture(folder)
    stub = FeatureExtractor("stub", lambda images: np.ones((len(images), 3), np.float32))
    assert folder_features([folder / "a.png"], stub, folder / "cache").shape[0] == 1


def make_features(folder: Path) -> None:
    read_features(folder)
    [made] = (folder / "cache").iterdir()
    made.with_name("kept.npy").symlink_to(made)


def read_times(folder: Path) -> None:
    try:
        CostTable.from_json(parse_json((folder / "times.json").read_bytes()))
    except (KeyError, TypeError, ValueError) as error:  # as documented; callers report it
        raise EcadError(type(error).__name__) from error


def make_front(folder: Path) -> None:
    half, third = (heuristics.every_n(pixart_sites(1), 6, n) for n in (2, 3))
    held_out = {"psnr": Interval(39.0, 38.0, 40.0)}
    points = [Point(half, 0.5, 40.0, held_out), Point(third.replace(forecast=True), 1 / 3, 30.0)]
    Front("tiny", points, provenance={"method": "search"}).save(folder / "front.json")


def read_front(folder: Path) -> None:
    front = Front.load(folder / "front.json")
    front.save(folder / "again.json")
    again = Front.load(folder / "again.json")
    assert again.schedules == front.schedules
    assert [point.quality for point in again.points] == [point.quality for point in front.points]


def read_description(folder: Path) -> None:
    found = describe(str(folder / "a.json"))
    assert found is not None
    assert Description.model_validate(json.loads(found.model_dump_json(by_alias=True))) == found
    assert found.pipeline
    assert not found.pipeline.isspace()


def make_flags(folder: Path) -> None:
    remember(context(folder, "--generations", "3", "--prompt-file", "a.txt", "--min-quality", "1"), folder)


def read_flags(folder: Path) -> None:
    kept = recall(context(folder, "--resume"), folder)
    known = {"seed": int, "batch_size": int, "quality": str, "live": bool, "generations": int | None}
    assert all(isinstance(kept[name], kind) for name, kind in known.items()), kept


def context(folder: Path, *flags: str) -> typer.Context:
    app = typer.Typer()
    app.command()(optimize)
    made: typer.Context = typer.main.get_command(app).make_context("optimize", ["-o", str(folder), *flags])
    return made


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
    "smoothcache": Target("a.json", text("a.json", '{"attn1": [1, 0, 1], "ff-0": [1, 1, 0]}'), import_smoothcache),
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
    "results": Target("results.json", make_results, lambda folder: Results.load(folder) is None),
    "study": Target(DATABASE, make_study, read_study),
    "flags": Target(FLAGS, make_flags, read_flags),
    "front": Target("front.json", make_front, read_front),
    "description": Target("a.json", text("a.json", DESCRIPTION), read_description),
    "times": Target("times.json", text("times.json", TIMES), read_times),
    "times, by row": Target("times.json", text("times.json", TIMES_BY_ROW), read_times),
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
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(read: Callable[[Path], None], folder: Path) -> tuple[str, str]:
    """ "accepted", "refused" or "fault", and the message."""
    try:
        with time_limit(LONGEST):
            read(folder)
    except EcadError as error:
        said = str(error)
        return ("refused", said) if said and "\n" not in said and said.isprintable() else ("fault", f"says {said!r}")
    except (Exception, AssertionError) as error:
        return "fault", f"{type(error).__name__}: {error}"
    return "accepted", ""
