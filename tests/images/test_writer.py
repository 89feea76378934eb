from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.images.writer import ImageWriter, scratch_folder


def test_a_writer_that_cannot_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(EcadError, match="cannot write this file"), ImageWriter(tmp_path) as writer:
        writer.write(image, [[tmp_path / "file" / "x.png"]])


def test_a_scratch_folder_is_empty_and_goes(tmp_path: Path) -> None:
    for name in (".partial-1-of-2", ".partial-2-of-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".left.tmp").touch()
    with scratch_folder(tmp_path, (1, 2)) as scratch:
        assert [file.name for file in scratch.iterdir()] == ["lock"]
        assert (tmp_path / ".partial-2-of-2/.left.tmp").exists()
    with scratch_folder(tmp_path, (1, 1)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_processes_never_make_the_same_images(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, (1, 2)), scratch_folder(tmp_path, (2, 2)):
        for shard in ((1, 2), (1, 1)):
            with (
                pytest.raises(EcadError, match="another process is making these images"),
                scratch_folder(tmp_path, shard),
            ):
                pass
        assert {path.name for path in tmp_path.iterdir()} >= {".partial-1-of-2", ".partial-2-of-2"}
    with scratch_folder(tmp_path, (1, 1)):
        pass
    assert list(tmp_path.iterdir()) == []
