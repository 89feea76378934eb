from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecad.report.page import page
from ecad.report.results import Results, save_images
from ecad.report.videos import video_header, video_rows


@pytest.fixture
def videos(tmp_path: Path, results: Results) -> Results:
    """Two videos of three frames; those of the found schedules differ in their second frame by 10 grey levels."""
    still = np.full((3 * 16, 16, 3), 100, np.uint8)
    other = still.copy()
    other[16:32] += 10

    def images(kind: str) -> list[np.ndarray]:
        return [still, other if kind == "found" else still]

    entries = tuple(
        replace(entry, images=save_images(tmp_path, entry.name, images(entry.kind))) for entry in results.entries
    )
    return replace(results, entries=entries, pictures=tuple(replace(one, frames=3) for one in results.pictures))


def test_the_worst_frame_and_flicker_stand_beside_the_mean(tmp_path: Path, videos: Results) -> None:
    rows = video_rows(videos, tmp_path)
    assert [row.name for row in rows] == [entry.name for entry in videos.ordered() if entry.kind != "uncached"]
    found = next(row for row in rows if row.name in {e.name for e in videos.entries if e.kind == "found"})
    one = 20 * np.log10(25.5)  # one frame of six is off by 10 levels, the others are equal: 99 dB
    assert found.numbers[:3] == (f"{(5 * 99 + one) / 6:.1f} dB", f"{one:.1f} dB (frame 2)", "5.00")
    same = next(row for row in rows if row.name in {e.name for e in videos.entries if e.kind == "baseline"})
    assert same.numbers[:3] == ("99.0 dB", "99.0 dB (frame 1)", "0.00")
    assert len(video_header(rows)) == len(found.numbers)


def test_images_have_no_table_of_videos(tmp_path: Path, videos: Results) -> None:
    stills = replace(videos, pictures=tuple(replace(one, frames=1) for one in videos.pictures))
    assert video_rows(stills, tmp_path) == []
    assert "worst frame" not in page(stills, tmp_path).split("<script")[0]
    assert "PSNR, worst frame" in page(videos, tmp_path)


def test_videos_that_cannot_be_read_are_left_out(tmp_path: Path, videos: Results) -> None:
    first = next(entry for entry in videos.ordered() if entry.kind == "found")
    (tmp_path / first.images[0]).unlink()
    (tmp_path / first.images[1]).write_bytes(b"")
    assert first.name not in {row.name for row in video_rows(videos, tmp_path)}
