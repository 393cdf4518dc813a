"""What is meant to be a file and is none: read by nobody, waited for by nobody."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gclip.core.files import read_file, what_is_at
from gclip.core.plugins import load_plugins
from gclip.errors import UsageError
from gclip.results import Store, StoreWarning
from gclip.tuning.grid_answers import answers_in
from gclip.tuning.sqlite import open_study, studies_in, summary
from gclip.tuning.sqlite_file import UnreadableStudy
from gclip.tuning.study_file import read_study_file

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\r\n")
    assert read_file(tmp_path / "a") == b"\x00\r\n"
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "b")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)


@pipes
def test_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        assert what_is_at("s") == "a device or a socket"
        with pytest.raises(OSError, match="No such device"):
            read_file("s")
    assert what_is_at(tmp_path) == "a folder"
    assert what_is_at(tmp_path / "nowhere") == "not there"
    assert what_is_at(pipe(tmp_path / "p")) == "a pipe"
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        read_file(tmp_path / "p")
    with pytest.raises(OSError, match="it is a device"):
        read_file("/dev/zero")


@pipes
def test_a_pipe_for_a_study_in_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study\.toml' cannot be read: it is a pipe, not a file"):
        read_study_file(pipe(tmp_path / "study.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_study_file(tmp_path / "folder.toml")


@pipes
def test_a_pipe_for_a_plugin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.py' does not load: it is a pipe"):
        load_plugins(pipe(tmp_path / "mine.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match=r"folder\.py' does not load: it is a folder"):
        load_plugins(tmp_path / "folder.py")


@pipes
def test_pipes_and_folders_in_a_store(tmp_path: Path) -> None:
    pipe(tmp_path / "studies" / "a.db")
    (tmp_path / "studies" / "b.db").mkdir()
    for path, kind in zip(studies_in(tmp_path).values(), ("a pipe", "a folder"), strict=True):
        with pytest.raises(UnreadableStudy, match=rf"{path.name}'.*it is {kind}, not a file"):
            summary(path)
        with (
            pytest.raises(UsageError, match=rf"{path.name}'.*it is {kind}, not a file"),
            open_study(tmp_path, path.stem, {}),
        ):
            pass
    key = "a" * 64
    pipe(tmp_path / key / "config.json")
    with pytest.warns(StoreWarning, match=r"aaaaaaaaaaaa .*config\.json: it is a pipe, not a file"):
        assert Store(tmp_path).read(key) is None


@pipes
def test_a_pipe_among_the_answers_of_studies(tmp_path: Path) -> None:
    from gclip.tuning import grid_answers

    path = pipe(tmp_path / grid_answers._FOLDER / "a.json")
    assert answers_in(tmp_path).unreadable == (f"'{path}' is no answer of a study",)
