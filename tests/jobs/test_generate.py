from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import HeunDiscreteScheduler
from generated_images import STEPS, TEXTS, changed, contents, counting, run
from PIL import Image

from ecad.errors import EcadError, ScheduleError
from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import ImageGenerator
from ecad.images.folder import MANIFEST, read_manifest
from ecad.jobs.generate import cut_batches, job_of, make_images, units
from ecad.prompts.store import find_stored
from ecad.runtime.cache import enabled_runs
from ecad.runtime.cache_run import CacheRun
from ecad.schedules import CacheSchedule, heuristics


def test_batches_follow_from_the_settings_and_stay_in_one_folder(stores: Path) -> None:
    batches = cut_batches(find_stored(stores), seeds=[4, 7], batch_size=3)
    assert [[(item.file, item.noise_seed) for item in batch] for batch in batches] == [
        [
            ("a/0000__prompt_seed-000__image_seed-004.png", 4),
            ("a/0000__prompt_seed-000__image_seed-007.png", 7),
            ("a/0001__prompt_seed-000__image_seed-004.png", 4),
        ],
        [("a/0001__prompt_seed-000__image_seed-007.png", 7)],
        [("b/0002__prompt_seed-000__image_seed-004.png", 4), ("b/0002__prompt_seed-000__image_seed-007.png", 7)],
    ]


def test_names_without_seeds_need_one_image_a_prompt(stores: Path) -> None:
    assert cut_batches(find_stored(stores), [4], 9, seed_in_name=False)[0][0].file == "a/0000__prompt_seed-000.png"
    with pytest.raises(EcadError, match="several images would have this name"):
        cut_batches(find_stored(stores), [4, 5], 9, seed_in_name=False)


def test_every_schedule_has_its_images_and_a_manifest(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counting(generator, monkeypatch)
    plain = heuristics.none(every_2.sites, STEPS)
    batches = cut_batches(find_stored(stores), [0, 1], 4)
    schedules: dict[str, CacheSchedule | None] = {
        "plain": plain,
        "every_2": every_2,
        "same": every_2.replace(name="same"),
    }
    assert run(generator, tmp_path, schedules, batches) == 18
    # Equal schedules are made once.
    assert sizes == [4, 4, 2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["every_2", "plain", "same"]
    settings, rows = read_manifest(tmp_path / "every_2")
    assert (settings["steps"], settings["guidance_scale"], settings["height"]) == (STEPS, generator.guidance_scale, 64)
    assert sorted(rows) == sorted(
        str(p.relative_to(tmp_path / "every_2")) for p in (tmp_path / "every_2").rglob("*.png")
    )
    assert rows["b/0002__prompt_seed-000__image_seed-001.png"] == {
        "prompt_id": "0002",
        "prompt": "a pear",
        "category": None,
        "prompt_seed": 0,
        "image_seed": 1,
    }
    every, same, plains = (contents(tmp_path / name) for name in ("every_2", "same", "plain"))
    assert every == same
    assert not {every[file] for file in rows} & {plains[file] for file in rows}


def test_the_image_is_that_of_its_prompt_and_seed_under_its_schedule(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(stores), [0, 5], 4))
    alone = generator.generate(generator.encode(TEXTS[1:2]), [5], every_2, steps=STEPS)[0].astype(int)
    image = np.asarray(Image.open(tmp_path / "x/a/0001__prompt_seed-000__image_seed-005.png")).astype(int)
    # Another batch size may round otherwise.
    assert np.abs(image - alone).max() <= 2


def test_a_job_of_many_batches_enables_its_schedule_once(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[CacheRun] = []
    attach = CacheRun.attach
    batches = cut_batches(find_stored(stores), [0, 1], 2)
    jobs = [job_of(generator, every_2, tmp_path / "x")]
    monkeypatch.setattr(CacheRun, "attach", lambda run: (enabled.append(run), attach(run))[1])
    assert sum(make_images(generator, jobs, batches, tmp_path)) == 6
    assert len(batches) > len(enabled) == 1
    assert enabled_runs(generator.pipe) == []


def test_shards_make_the_same_bytes_without_overlap(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    batches = cut_batches(find_stored(stores), [0, 1], 2)
    schedules = {"x": every_2, "y": None}
    assert run(generator, tmp_path / "whole", {"x": every_2}, batches) == 6
    parts = [run(generator, tmp_path / "parts", {"x": every_2}, batches, shard=(i, 2)) for i in (2, 1)]
    assert sorted(parts) == [2, 4]
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    jobs = [job_of(generator, schedule, tmp_path / name) for name, schedule in schedules.items()]
    split = [unit for part in (1, 2, 3, 4) for unit in units(jobs, batches, (part, 4))]
    assert sorted((b[0].file, g[0].folder.name) for b, g in split) == sorted(
        (b[0].file, g[0].folder.name) for b, g in units(jobs, batches, (1, 1))
    )


def test_what_is_missing_or_damaged_is_made_again_with_its_whole_batch(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = cut_batches(find_stored(stores), [0, 1], 3)
    run(generator, tmp_path, {"x": every_2}, batches)
    whole = contents(tmp_path)
    sizes = counting(generator, monkeypatch)
    run(generator, tmp_path, {"x": every_2}, batches)
    assert sizes == []
    missing, damaged = tmp_path / "x" / batches[0][1].file, tmp_path / "x" / batches[2][0].file
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-20])
    (tmp_path / ".partial-2-of-3").mkdir()
    (tmp_path / ".partial-2-of-3/.0123.tmp").write_bytes(b"half")
    run(generator, tmp_path, {"x": every_2}, batches)
    assert sizes == [3, 2]
    assert contents(tmp_path) == whole


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here to kill a copy of this process with"
)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tools/robustness/resume.py does it with whole commands; what the images are of makes no difference here."""

    def noise(self: ImageGenerator, embeds: object, seeds: list[int], schedule: object, **call: object) -> np.ndarray:
        time.sleep(0.02)
        seeded = [np.random.default_rng([seed, schedule is None]) for seed in seeds]
        return np.stack([rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for rng in seeded])

    monkeypatch.setattr(ImageGenerator, "generate", noise)
    batches = cut_batches(find_stored(stores), [0, 1], 1)
    schedules: dict[str, CacheSchedule | None] = {"x": every_2, "y": None}
    run(generator, tmp_path / "whole", schedules, batches)
    fork, rng, counts = multiprocessing.get_context("fork"), random.Random(0), []
    for _ in range(4):
        before = len(contents(tmp_path))
        child = fork.Process(target=run, args=(generator, tmp_path / "broken", schedules, batches))
        child.start()
        while child.is_alive() and len(contents(tmp_path)) <= before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.join()
        counts.append(len(list((tmp_path / "broken").rglob("*.png"))))
    assert counts[0] < len(batches) * len(schedules)
    run(generator, tmp_path / "broken", schedules, batches)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_images_of_another_kind_are_refused_or_replaced(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    batches = cut_batches(find_stored(stores), [0], 4)
    run(generator, tmp_path, {"x": every_2}, batches)
    before = contents(tmp_path)
    with pytest.raises(EcadError, match="holds images made under another schedule"):
        run(generator, tmp_path, {"x": heuristics.none(every_2.sites, STEPS)}, batches)
    strange = job_of(generator, every_2, tmp_path / "x", guidance_scale=7.0)
    with pytest.raises(EcadError, match=r"holds images made with guidance_scale 2\.0, now it is 7\.0"):
        list(make_images(generator, [strange], batches, tmp_path))
    assert contents(tmp_path) == before
    run(generator, tmp_path, {"x": None}, cut_batches(find_stored(stores / "b"), [0], 4), overwrite=True)
    assert sorted(contents(tmp_path)) == ["x/0002__prompt_seed-000__image_seed-000.png", "x/manifest.jsonl"]


def forecasting(every_2: CacheSchedule) -> dict[str, CacheSchedule]:
    """Schedules with the same bits that give other images."""
    whole = every_2.replace(recompute=np.arange(STEPS)[:, None] % 2 == np.zeros((1, len(every_2.sites))))
    products = np.minimum.outer(np.arange(float(STEPS)), np.arange(float(STEPS))) + 1
    return {
        "repeats": whole,
        "forecasts": whole.replace(forecast=True),
        "fitted": whole.replace(forecast=True, output_products=products),
    }


def test_schedules_with_the_same_bits_that_forecast_otherwise_have_images_of_their_own(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = cut_batches(find_stored(stores / "b"), [0], 4)
    schedules = forecasting(every_2)
    sizes = counting(generator, monkeypatch)
    run(generator, tmp_path, schedules, batches)
    assert sizes == [1, 1, 1]
    assert len({job_of(generator, one, tmp_path).plan for one in schedules.values()}) == 3
    for name, other in (("repeats", "forecasts"), ("forecasts", "fitted")):
        with pytest.raises(EcadError, match="holds images made under another schedule"):
            run(generator, tmp_path, {name: schedules[other]}, batches)


def test_more_seeds_join_those_that_are_there(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(stores), [0], 4))
    run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(stores), [1], 4))
    assert len(read_manifest(tmp_path / "x")[1]) == 6


def test_a_file_that_nobody_tells_about_is_not_trusted(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    batches = cut_batches(find_stored(stores), [0], 4)
    run(generator, tmp_path, {"x": every_2}, batches)
    (tmp_path / "x" / MANIFEST).unlink()
    with pytest.raises(EcadError, match="which is not in its manifest"):
        run(generator, tmp_path, {"x": every_2}, batches)


def test_a_damaged_manifest_is_named(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    for content in ("", "[]\n", '{"settings": {}}\n{"fi', '{"settings": {}}\n{"prompt": "x"}\n'):
        (tmp_path / "x" / MANIFEST).write_text(content)
        with pytest.raises(EcadError, match="cannot read this manifest of images") as caught:
            run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(stores), [0], 4))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "told"),
    [({"height": "64"}, "config: not a height"), ({"guidance_scale": True}, "config: not a guidance_scale")],
)
def test_a_config_that_holds_no_numbers_is_refused(
    generator: ImageGenerator, every_2: CacheSchedule, tmp_path: Path, config: dict[str, object], told: str
) -> None:
    with pytest.raises(ScheduleError, match=told):
        job_of(generator, every_2.replace(config=config), tmp_path)


def test_settings_given_go_before_the_schedules_before_the_generators(
    generator: ImageGenerator, every_2: CacheSchedule, tmp_path: Path
) -> None:
    weak = every_2.replace(config={"guidance_scale": 1.5})
    assert job_of(generator, every_2, tmp_path).call["guidance_scale"] == generator.guidance_scale
    assert job_of(generator, weak, tmp_path).call["guidance_scale"] == 1.5
    assert job_of(generator, weak, tmp_path, guidance_scale=0.0).call["guidance_scale"] == 0.0
    assert job_of(generator, None, tmp_path, height=32, width=96).call == {
        "steps": generator.steps,
        "guidance_scale": generator.guidance_scale,
        "height": 32,
        "width": 96,
    }
    with pytest.raises(EcadError, match="image size 30x64 does not fit"):
        job_of(generator, None, tmp_path, height=30)


def test_a_full_disk_is_told_leaves_nothing_half_written_and_the_run_goes_on(
    generator: ImageGenerator,
    stores: Path,
    every_2: CacheSchedule,
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    batches = cut_batches(find_stored(stores), [0], 1)
    run(generator, tmp_path / "whole", {"x": every_2}, batches)
    whole = contents(tmp_path / "whole")
    manifest = len(whole[f"x/{MANIFEST}"])
    with full_disk(manifest), pytest.raises(EcadError, match="cannot write this file: File too large"):
        run(generator, tmp_path / "full", {"x": every_2}, batches)
    left = contents(tmp_path / "full")
    assert left.items() < whole.items()
    assert f"x/{MANIFEST}" in left
    run(generator, tmp_path / "full", {"x": every_2}, batches)
    assert contents(tmp_path / "full") == whole


def test_a_schedule_has_rows_and_the_sampler_says_of_how_many_steps(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    heun = changed(generator, scheduler=HeunDiscreteScheduler.from_config(generator.pipe.scheduler.config))
    assert heun.rows(3) == 5
    with pytest.raises(ScheduleError, match="makes 3 of 2 steps, 5 of 3 steps"):
        job_of(heun, every_2.resample(4), tmp_path)
    schedule = every_2.resample(heun.rows(3))
    job = job_of(heun, schedule, tmp_path / "x")
    assert job.call["steps"] == 3
    assert job_of(heun, schedule, tmp_path, steps=3).call == job.call
    with pytest.raises(ScheduleError, match="is for 3 steps, not for 4: resample it"):
        job_of(heun, schedule, tmp_path, steps=4)
    assert sum(make_images(heun, [job], cut_batches(find_stored(stores / "b"), [0], 4), tmp_path)) == 1
    assert heun.generate(heun.encode(TEXTS[:1]), [0], schedule).shape == (1, 64, 64, 3)


def test_a_search_of_a_sampler_of_second_order_has_its_rows_and_counts_them(generator: ImageGenerator) -> None:
    heun = replace(
        changed(generator, scheduler=HeunDiscreteScheduler.from_config(generator.pipe.scheduler.config)), steps=3
    )
    problem, first_order = problem_of(heun), problem_of(replace(generator, steps=5))
    assert problem.shape == first_order.shape == (5, len(problem.template.sites))
    assert problem.uncached_cost == first_order.uncached_cost
    products = heun.output_products(heun.encode(TEXTS[:1]), [0])
    assert products is not None
    assert products.shape == (5, 5)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seeds_that_no_noise_is_drawn_with_are_refused_before_anything_is_made(
    generator: ImageGenerator, stores: Path, seed: int
) -> None:
    with pytest.raises(EcadError, match=f"seed {seed} is too"):
        cut_batches(find_stored(stores), [0, seed], 4)
    with pytest.raises(EcadError, match=f"seed {seed} is too"):
        generator.generate(generator.encode(TEXTS[:1]), [seed])
