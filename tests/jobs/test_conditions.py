"""Images and embeddings that were made under other conditions."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from diffusers import EulerDiscreteScheduler
from generated_images import STEPS, changed, contents, counting, run

from ecad.errors import EcadError, EcadWarning
from ecad.image_generators import ImageGenerator
from ecad.images.folder import MANIFEST
from ecad.jobs.generate import cut_batches, job_of
from ecad.prompts.store import find_stored
from ecad.schedules import CacheSchedule, heuristics


def test_images_of_a_pipeline_with_another_part_are_refused_or_replaced(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    batches = cut_batches(find_stored(stores / "b"), [0], 4)
    run(generator, tmp_path, {"x": every_2}, batches)
    vae = copy.deepcopy(generator.pipe.vae)
    next(vae.parameters()).data[0, 0] += 1e-3
    config = generator.pipe.scheduler.config
    for part, other in (
        ("scheduler", EulerDiscreteScheduler.from_config(config)),
        ("scheduler", type(generator.pipe.scheduler).from_config(config, solver_order=1)),
        ("vae", vae),
    ):
        strange = changed(generator, **{part: other})
        with pytest.raises(EcadError, match=f"holds images made with parts.{part} '"):
            run(strange, tmp_path, {"x": every_2}, batches)
    with pytest.warns(RuntimeWarning, match="deleted 1 images"):
        run(strange, tmp_path, {"x": every_2}, batches, overwrite=True)
    # The text encoder's work is in the embeddings.
    run(changed(strange, text_encoder=None, tokenizer=None), tmp_path, {"x": every_2}, batches)


def test_the_page_of_formats_names_every_setting(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(stores / "b"), [0], 4))
    settings = json.loads((tmp_path / "x" / MANIFEST).read_text().splitlines()[0])["settings"]
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    rows = {kind: next(line for line in page if line.startswith(f"| {kind} |")) for kind in ("image", "embeddings")}
    assert [name for name in settings if f"`{name}`" not in rows["image"]] == []
    assert [name for name in settings["embeddings"] if f"`{name}`" not in rows["embeddings"]] == []


def older_manifest(folder: Path, plan: str | None = None) -> None:
    """Make a manifest one of a release that named the denoiser alone, and told schedules apart by their bits."""
    head, *rows = (folder / MANIFEST).read_text().splitlines()
    settings = json.loads(head)["settings"]
    del settings["parts"], settings["embeddings"]["parts"]
    settings["plan"] = plan or settings["plan"]
    (folder / MANIFEST).write_text("\n".join([json.dumps({"settings": settings}), *rows]) + "\n")


def test_images_of_a_release_whose_manifest_named_less_are_kept_and_told(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = cut_batches(find_stored(stores / "b"), [0], 4)
    job = job_of(generator, every_2, tmp_path / "x")
    run(generator, tmp_path, {"x": every_2}, batches)
    older_manifest(tmp_path / "x", job.older_plan)
    before, sizes = contents(tmp_path), counting(generator, monkeypatch)
    with pytest.warns(EcadWarning, match="does not name parts; kept"):
        run(generator, tmp_path, {"x": every_2}, batches)
    assert (sizes, contents(tmp_path)) == ([], before)
    # What such a manifest cannot tell apart is not taken on trust.
    for other in (every_2.replace(forecast=True), heuristics.none(every_2.sites, STEPS)):
        with pytest.raises(EcadError, match="holds images made with"):
            run(generator, tmp_path, {"x": other}, batches)
    with pytest.warns(RuntimeWarning, match="deleted 1 images"):
        run(generator, tmp_path, {"x": every_2}, batches, overwrite=True)
    assert sizes == [1]


def test_images_generated_with_other_versions_are_kept_and_told(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = cut_batches(find_stored(stores / "b"), [0], 4)
    run(generator, tmp_path, {"x": every_2}, batches)
    manifest = tmp_path / "x" / MANIFEST
    made_with = json.loads(manifest.read_text().splitlines()[0])["made_with"]
    assert {"ecad", "torch", "diffusers", "device"} <= set(made_with)
    manifest.write_text(manifest.read_text().replace(json.dumps(made_with["torch"]), '["1.0"]', 1))
    with pytest.warns(EcadWarning, match=r"generated with torch 1\.0 \(now "):
        run(generator, tmp_path, {"x": every_2}, batches)
    assert json.loads(manifest.read_text().splitlines()[0])["made_with"]["torch"] == ["1.0", *made_with["torch"]]


def test_embeddings_of_another_model_are_refused(
    generator: ImageGenerator, stores: Path, every_2: CacheSchedule, tmp_path: Path
) -> None:
    index = stores / "b/index.json"
    kept = index.read_text()
    try:
        for old, new, told in (
            ("EmojiImageGenerator", "FluxImageGenerator", "made for FluxImageGenerator"),
            ("float32", "float16", "several"),
        ):
            index.write_text(json.dumps(json.loads(kept)).replace(old, new))
            folder = stores / "b" if told != "several" else stores
            with pytest.raises(EcadError, match=told):
                run(generator, tmp_path, {"x": every_2}, cut_batches(find_stored(folder), [0], 4))
    finally:
        index.write_text(kept)
