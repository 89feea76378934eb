from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.images.folder import MANIFEST, begin_folder, is_whole
from ecad.images.writer import ImageWriter


@pytest.mark.parametrize("harm", ["cut", "zeros", "flipped", "empty", "other", "none", "size"])
def test_only_a_whole_png_is_whole(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "x.png"
    with ImageWriter(tmp_path) as writer:
        writer.write(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), [[path]])
    content = path.read_bytes()
    assert is_whole(path, (4, 4))
    middle = len(content) // 2
    harmed = {
        "cut": content[:-1],
        "zeros": content[:middle] + bytes(len(content) - middle),
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "other": b"no image",
    }
    if harm == "none":
        path.unlink()
    else:
        path.write_bytes(harmed.get(harm, content))
    assert not is_whole(path, (4, 5) if harm == "size" else (4, 4))


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "a/../../victim", 3, "a\x00b"])
def test_a_manifest_that_names_files_elsewhere_is_refused_and_nothing_is_deleted(tmp_path: Path, name: object) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"settings": {}}) + "\n" + json.dumps({"file": name}) + "\n")
    with pytest.raises(EcadError, match="cannot read this manifest of images"):
        begin_folder(folder, {"other": 1}, [], tmp_path, overwrite=True)
    assert victim.read_text() == "mine"
