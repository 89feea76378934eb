from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecad import EcadError
from ecad.utils.files import make_folder, output_folder, write_atomic


def test_text_is_utf8_with_its_own_line_ends_and_bytes_are_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / "text", "ä\r\n\n")
    write_atomic(tmp_path / "bytes", b"\xff\x00")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\r\n\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff\x00"


def test_pieces_make_one_file_or_none(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", (letter for letter in "aä\n"))
    assert (tmp_path / "f").read_bytes() == b"a\xc3\xa4\n"

    def torn() -> Iterator[str]:
        yield "new"
        raise KeyError

    with pytest.raises(KeyError):
        write_atomic(tmp_path / "f", torn())
    assert (tmp_path / "f").read_text() == "aä\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_makes_parent_folders_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_atomic(str(tmp_path / "a" / "b" / "c.txt"), "1")
    write_atomic(tmp_path / "a" / "b" / "c.txt", "2")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "2"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    file = tmp_path / "f.txt"
    write_atomic(file, "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(EcadError, match=r"f\.txt: cannot write this file: No space left on device"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupt_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "f.txt", "new")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EcadError, match="folder: cannot write this file"):
        write_atomic(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_no_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EcadError, match="cannot write this file"):
        write_atomic(tmp_path / "file" / "inner", "y")


@pytest.mark.skipif(os.name == "nt", reason="POSIX links and permissions")
def test_follows_a_link_and_honours_the_umask(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "link", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_make_folder_makes_it_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_make_folder_refuses_what_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "inside", Path("/proc/ecad")):
        with pytest.raises(EcadError, match="cannot write to this folder"):
            make_folder(path)


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_a_new_folder_goes_again_if_nothing_came_of_it(tmp_path: Path, was_there: bool, left: bool) -> None:
    folder = tmp_path / "study"
    if was_there:
        folder.mkdir()

    def fail() -> None:
        with output_folder(folder):
            assert folder.is_dir()
            if left:
                (folder / "result").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert folder.is_dir() == (was_there or left)
    with output_folder(folder):
        pass
    assert folder.is_dir()
