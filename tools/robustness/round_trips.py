"""How the files of `targets.py` are written and read.

A reader checks what it has read: whatever it accepts survives a round trip, and no name leads out of the folder.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import diffusers.utils.logging
import numpy as np
import pyarrow
import torch
import typer
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from pyarrow import parquet

from ecad.commands.optimize import optimize
from ecad.commands.resume import recall, remember
from ecad.cost.table import CostTable
from ecad.errors import EcadError
from ecad.execution import Failure
from ecad.genetic import LocalEvaluator, Problem, Store
from ecad.genetic.search import search
from ecad.genetic.study.layout import DATABASE
from ecad.genetic.study.results import results_of
from ecad.genetic.study.study import Study
from ecad.genetic.study.table import candidate_rows, summary_row
from ecad.image_generators.description import Description, describe
from ecad.image_generators.loading import load_pipeline
from ecad.images.folder import begin_folder, read_manifest
from ecad.jobs.encode import by_category, numbered
from ecad.jobs.score import FolderScores, Item, score_folder
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.index import Entry
from ecad.prompts.store import find_stored, load_stored, write_store
from ecad.quality.features import FeatureExtractor, folder_features
from ecad.quality.scorers import Scorer
from ecad.report import Results
from ecad.schedules import CacheSchedule, heuristics, importers, pixart_sites
from ecad.schedules.front import Front, Point
from ecad.schedules.provenance import KEY, Interval
from ecad.schedules.sharing import card
from ecad.utils.files import parse_json


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


def import_from(kind: importers.Kind, steps: int | None = None) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        found = importers.from_text(kind, (folder / "a.json").read_text(errors="replace"), pixart_sites(2), steps)
        assert CacheSchedule.from_json(json.loads(json.dumps(found.to_json()))) == found

    return read


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


def make_results(folder: Path) -> None:
    Results("t", "g", (), (), "psnr").save(folder)


def make_study(folder: Path) -> None:
    """A finished search by scores that cost nothing, with a candidate that was given up."""
    evaluator = LocalEvaluator(
        generate=lambda schedule, items: [schedule.recompute] * len(items),
        score=lambda images, items: np.array([float(bits.sum()) for bits in images]),
        scorer="synthetic",
        prompts=[Prompt("0", "a fox"), Prompt("1", "an owl")],
        seeds=[0],
        batch_size=2,
    )
    uncached = heuristics.none(pixart_sites(1), 4)
    problem = Problem(uncached, lambda bits, _: 100 + bits.sum(axis=(1, 2)), forecast="either")
    found = search(problem, evaluator, folder, generations=2, population_size=4)
    with Store.open(folder) as store:
        store.add_failures(b"x", found.items, "synthetic", Failure("no image", 2))
        store.ensure_scorer("other", {"scorer": "1", "scorer_parts": {"tokenizer": "2"}})
    found.close()


def read_study(folder: Path) -> None:
    """What the commands `report` and `study` read, and what a search that resumes does."""
    study = Study.open(folder)
    try:
        candidate_rows(study), summary_row(study), study.versions
        for candidate in study.front():
            study.scores(candidate), study.held_out_scores(candidate.schedule)
        results = results_of(study, folder)
    finally:
        study.close()
    results.save(folder / "results")
    assert Results.load(folder / "results") == results


def make_study_settings(folder: Path) -> None:
    """The settings of a study as a file of their own, which `read_study_settings` puts into the study."""
    make_study(folder)
    with Store.read(folder) as store:
        (folder / "settings.json").write_text(json.dumps(store.settings()))


def read_study_settings(folder: Path) -> None:
    try:
        settings = parse_json((folder / "settings.json").read_bytes())
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise EcadError("not the settings of a study")
    rows = [(name, json.dumps(value)) for name, value in settings.items()]
    if any("\ud800" in name for name in settings):
        raise EcadError("SQLite holds no half of a surrogate pair")
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM settings")
        connection.executemany("INSERT INTO settings VALUES (CAST(? AS TEXT), ?)", rows)
    read_study(folder)


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


def make_pipeline(folder: Path) -> None:
    diffusers.utils.logging.set_verbosity_error()
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=1,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)


def read_pipeline(folder: Path) -> None:
    load_pipeline(Description(pipeline=str(folder)), torch.float32)


def make_flags(folder: Path) -> None:
    remember(context(folder, "--generations", "3", "--prompt-file", "a.txt", "--min-quality", "1"), folder)


def read_flags(folder: Path) -> None:
    kept = recall(context(folder, "--resume"), folder)
    known = {"seed": int, "batch_size": int, "quality": str, "live": bool, "generations": int | None}
    assert all(isinstance(kept[name], kind) for name, kind in known.items()), kept


def context(folder: Path, *flags: str) -> typer.Context:
    made: typer.Context = command().make_context("optimize", ["-o", str(folder), *flags])
    return made


@cache
def command() -> typer.core.TyperCommand:
    app = typer.Typer()
    app.command()(optimize)
    return typer.main.get_command(app)
