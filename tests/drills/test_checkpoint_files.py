"""Checkpoints of 40 MB: killed while they are saved, a full disk, flipped bits, truncations."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
import torch

from gclip.training import checkpoint
from tests.drills.processes import Loaded

pytestmark = pytest.mark.drill

SEED = 7
FLOATS = 10_000_000  # of 4 bytes
SAVES = """
import torch
from gclip.training import checkpoint
path, floats = sys.argv[1], int(sys.argv[2])
step = 0
while True:
    step += 1
    checkpoint.save(path, {"step": step, "weights": torch.full((floats,), float(step))})
    print(step, flush=True)
"""
LIMITED = """
import resource, signal, torch
from gclip.errors import UsageError
from gclip.training import checkpoint
path, floats, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    checkpoint.save(path, {"step": 2, "weights": torch.full((floats,), 2.0)})
except UsageError as error:
    print(error)
"""


def state(step: int, floats: int = FLOATS) -> dict[str, object]:
    return {"step": step, "weights": torch.full((floats,), float(step))}


def step_of(path: Path) -> int:
    """The step of a checkpoint that is whole."""
    found = checkpoint.load(path)
    assert bool((found["weights"] == float(found["step"])).all())
    return int(found["step"])


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def test_killed_while_it_saves(
    loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, path = random.Random(SEED), tmp_path / "run.ckpt"
    halves = 0
    for _ in range(40):
        with loaded.start(tmp_path, str(path), str(FLOATS), code=SAVES) as process:
            while not process.out.exists() or not process.out.read_text().split():
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.5))
        said = int(process.out.read_text().split()[-1])
        halves += len(list(tmp_path.glob(".run.ckpt.*")))
        # What was said to be saved is there, or what came after it.
        assert step_of(path) in (said, said + 1)
        assert not list(tmp_path.glob(".run.ckpt.*"))
    say(capsys, f"40 of 40 kills: a whole checkpoint; {halves} half-written files, all removed")


def test_a_full_disk(loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    path = folder / "run.ckpt"
    checkpoint.save(path, state(1))
    for most in (1 << 20, 4 * FLOATS - 1, 4 * FLOATS):
        limits = (str(path), str(FLOATS), str(most))
        with loaded.start(tmp_path, *limits, code=LIMITED) as process:
            assert process.wait() == 0, process.said
        assert "cannot be written" in process.out.read_text()
        assert step_of(path) == 1
        assert [each.name for each in folder.iterdir()] == ["run.ckpt"]
    say(capsys, "files that may not grow, 3 limits: the previous checkpoint is whole each time")


def test_a_full_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a small file system")
    try:
        path = small / "run.ckpt"
        checkpoint.save(path, state(1))
        with pytest.raises(ValueError, match="No space left"):
            checkpoint.save(path, state(2))
        assert step_of(path) == 1
        assert [each.name for each in small.iterdir()] == ["run.ckpt"]
    finally:
        subprocess.run(["umount", str(small)], check=False)
    say(capsys, "a full file system: the previous checkpoint is whole")


def test_flipped_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, path = random.Random(SEED), tmp_path / "run.ckpt"
    checkpoint.save(path, state(1), {"configs": ["{}"], "step": 1})
    size, told = path.stat().st_size, 0
    with open(path, "r+b") as file:
        for place in [*range(100), *(chance.randrange(size) for _ in range(200))]:
            bit = 1 << chance.randrange(8)
            file.seek(place)
            [before] = file.read(1)
            for byte in (before ^ bit, before):
                file.seek(place)
                file.write(bytes([byte]))
                file.flush()
                if byte != before:
                    with pytest.raises(checkpoint.DamagedCheckpoint):
                        checkpoint.load(path)
                    told += 1
    assert step_of(path) == 1
    say(capsys, f"{told} of 300 flipped bits are told")


def test_every_truncation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, path, cut = random.Random(SEED), tmp_path / "run.ckpt", tmp_path / "cut.ckpt"
    checkpoint.save(path, state(1, 10))
    small, told = path.read_bytes(), 0
    for length in range(len(small)):
        cut.write_bytes(small[:length])
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.load(cut)
        told += 1
    checkpoint.save(cut, state(1))
    for length in sorted((chance.randrange(cut.stat().st_size) for _ in range(50)), reverse=True):
        with open(cut, "r+b") as file:
            file.truncate(length)
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.load(cut)
        told += 1
    say(capsys, f"{told} of {len(small) + 50} truncations are told")
