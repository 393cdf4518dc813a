"""Files of ``torch.save`` from anybody: tensors are read, and nothing else is made or run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gclip.core.tensor_files import load_tensors
from gclip.errors import UsageError


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def saved(value: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **settings)
    return file.getvalue()


def packed(content: bytes) -> bytes:
    """The same members, squeezed; zeros take no room."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def test_tensors_come_back() -> None:
    value = {"a": torch.arange(3.0), "b": [1, "two", None], "c": {"d": torch.ones(2).bool()}}
    found = load_tensors(saved(value), "the file")
    assert torch.equal(found["a"], value["a"])
    assert (found["b"], found["c"]["d"].tolist()) == (value["b"], [True, True])


@pytest.mark.parametrize("kind", ["a payload", "an old file", "a bare pickle"])
def test_nothing_is_run(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = {
        "a payload": lambda: saved({"weights": Payload(mark)}),
        "an old file": lambda: saved(Payload(mark), _use_new_zipfile_serialization=False),
        "a bare pickle": lambda: pickle.dumps(Payload(mark)),
    }[kind]()
    with pytest.raises(UsageError, match="^the file is refused: it "):
        load_tensors(content, "the file")
    assert not mark.exists()
    if kind == "a payload":  # which would have left it
        torch.load(io.BytesIO(content), weights_only=False)
        assert mark.exists()


def test_a_small_file_that_is_huge_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(saved(torch.zeros(10**6)))
    assert len(content) < 10**5
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UsageError, match=r"its [\d,]+ bytes would unpack to 4,0[\d,]+; name"):
        load_tensors(content, "the file")


@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 99, b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_such_file(content: bytes) -> None:
    with pytest.raises(UsageError, match="the file is refused"):
        load_tensors(content, "the file")


def test_flipped_bits_are_refused_or_change_numbers_alone() -> None:
    content = saved({"a": torch.arange(4.0)})
    for place in range(0, len(content), 11):
        broken = bytearray(content)
        broken[place] ^= 0x10
        with contextlib.suppress(UsageError):
            load_tensors(bytes(broken), "the file")
