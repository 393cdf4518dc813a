"""A checkpoint is whole, verified, or refused."""

from __future__ import annotations

import pytest
import torch

from gclip.errors import UsageError
from gclip.training import checkpoint


@pytest.fixture
def state():
    return {"weights": torch.arange(5.0), "step": 3, "names": ["a", "b"], "none": None}


def test_round_trip(tmp_path, state):
    path = tmp_path / "new" / "run.ckpt"
    checkpoint.save(path, state)
    found = checkpoint.load(path)
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    assert [each.name for each in path.parent.iterdir()] == ["run.ckpt"]


def test_any_flipped_bit_is_noticed(tmp_path, state):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, state)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(UsageError, match="is damaged|is not a checkpoint"):
            checkpoint.load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="is damaged; delete it"):
        checkpoint.load(path)


def test_a_failed_save_leaves_the_old_one(tmp_path, state, monkeypatch):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, state)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot be written: .*No space left"):
        checkpoint.save(path, state | {"step": 4})
    assert checkpoint.load(path)["step"] == 3
    assert [each.name for each in tmp_path.iterdir() if each.name != "cache"] == ["run.ckpt"]


def test_what_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="is not a checkpoint of gclip"):
        checkpoint.load(tmp_path / "text")
