"""`compute_fid.py`: distances with a real trained extractor (the built-in judge), counts, and references apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.images.files import image_files, read_images
from ecad.quality.features import get_feature_extractor
from ecad.quality.fid import Statistics, fid, kid

JUDGE = ("--model-name", "judge")


def paint(folder: Path, count: int, level: int) -> None:
    """Smooth pictures with noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(level)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64))
        noisy = np.asarray(small) + rng.normal(0, level, (64, 64, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{i:04d}.png")


@pytest.fixture
def folders(script, tmp_path: Path) -> Path:
    paint(tmp_path / "ref", 40, 0)
    paint(tmp_path / "gen" / "m", 30, 20)
    return tmp_path


def statistics(folder: Path) -> Statistics:
    return Statistics.of(get_feature_extractor("judge", device="cpu").extract(read_images(image_files(folder))))


def test_distances_and_counts_are_written_and_printed(script, folders: Path) -> None:
    code, out, err = script("compute_fid", "--ref-dir", "ref", "--gen-dir", "gen", *JUDGE)
    assert code == 0
    found = json.loads((folders / "gen" / "fid_scores.json").read_text())
    one, other = statistics(folders / "gen"), statistics(folders / "ref")
    assert found["fid_score"] == pytest.approx(fid(one, other), rel=1e-4)
    assert found["kid_score"] == pytest.approx(kid(one, other), rel=1e-2)
    assert (found["num_generated"], found["num_reference"]) == (30, 40)
    assert (found["ref_dir"], found["gen_dir"], found["model_name"]) == ("ref", "gen", "judge")
    assert out.startswith(f"gen: FID {found['fid_score']:.4f}, KID ")
    assert out.endswith("30 images against 40 reference images\n")
    assert "below 2048" in err


def test_two_references_are_never_mixed(script, folders: Path) -> None:
    command = ("compute_fid", "--gen-dir", "gen", *JUDGE, "--json", "--ref-dir")

    def score(reference: str) -> float:
        code, out, _ = script(*command, reference)
        assert code == 0
        return json.loads(out)["folders"][0]["fid_score"]

    first = score("ref")
    paint(folders / "other", 40, 90)
    other = score("other")
    assert other != first
    # Other pictures under the name of the first reference.
    (folders / "ref").rename(folders / "was")
    (folders / "other").rename(folders / "ref")
    assert score("ref") == other
    assert score("was") == first


def test_reference_statistics_from_a_file(script, folders: Path) -> None:
    reference = statistics(folders / "ref")
    np.savez(folders / "ref.npz", mu=reference.mean, sigma=reference.covariance)
    code, out, _ = script("compute_fid", "--ref-stats", "ref.npz", "--gen-dir", "gen", *JUDGE, "--json")
    (row,) = json.loads(out)["folders"]
    assert code == 0
    assert row["fid_score"] == pytest.approx(fid(statistics(folders / "gen"), reference), rel=1e-4)
    assert (row["kid_score"], row["num_reference"], row["ref_stats"]) == (None, None, "ref.npz")


def test_several_schedules_are_refused_unless_each_is_asked_for(script, fails, folders: Path) -> None:
    paint(folders / "all" / "fast" / "m", 10, 5)
    paint(folders / "all" / "slow" / "m", 10, 9)
    command = ("compute_fid", "--ref-dir", "ref", "--gen-dir", "all", *JUDGE)
    assert "expected the images of one schedule, found those of fast and of slow" in fails(*command)
    code, out, _ = script(*command, "--each", "-o", "s/fid.json")
    assert code == 0
    assert len(out.splitlines()) == 2
    for name in ("fast", "slow"):
        found = json.loads((folders / "all" / name / "s" / "fid.json").read_text())
        assert found["fid_score"] == pytest.approx(
            fid(statistics(folders / "all" / name), statistics(folders / "ref")), rel=1e-4
        )


def test_mistakes(fails, folders: Path) -> None:
    paint(folders / "one", 1, 0)
    for arguments, told in (
        (("--gen-dir", "gen"), "either --ref-dir or --ref-stats"),
        (("--gen-dir", "gen", "--ref-dir", "ref", "--ref-stats", "x"), "either --ref-dir or --ref-stats"),
        (("--gen-dir", "missing", "--ref-dir", "ref", *JUDGE), "missing"),
        (("--gen-dir", "gen", "--ref-dir", "missing", *JUDGE), "missing"),
        (("--gen-dir", "one", "--ref-dir", "ref", *JUDGE), "needs at least 2 images for a covariance, found 1"),
        (("--gen-dir", "gen", "--ref-dir", "ref", "--model-name", "no/clip"), "no/clip: cannot load a CLIPModel"),
        (
            ("--gen-dir", "gen", "--ref-stats", "missing.npz", *JUDGE),
            "missing.npz: no such file; give an .npz file with the statistics",
        ),
        (
            ("--gen-dir", "gen", "--ref-dir", "ref", "--weights", "gen"),
            "inception_v3: cannot load its weights from gen",
        ),
    ):
        assert told in fails("compute_fid", *arguments), arguments
    assert not (folders / "gen" / "fid_scores.json").exists()
