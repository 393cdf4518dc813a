"""torchrun itself: the command as users type it, and a process that is killed.

Only under ``make distributed``: each start takes torchrun and two processes some seconds.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.results import Store
from gclip.training import RunConfig, load_dataset, train
from tests import processes

pytestmark = [
    processes.NEEDED,
    pytest.mark.skipif(
        not os.environ.get("GCLIP_DISTRIBUTED"),
        reason="takes a minute of processes: make distributed, which CI runs",
    ),
]
TRAIN = ("-m", "gclip", "train", "--device", "cpu")


def sentences(done: Any) -> list[str]:
    """What gclip has said of failures; torchrun adds a report of its own."""
    return [line for line in done.stderr.splitlines() if line.startswith("gclip: ")]


@pytest.mark.parametrize(
    ("size", "options", "tolerance"),
    [
        (2, {}, 5e-6),
        (3, {"batch_size": 100}, 5e-6),
        (2, {"model": "resnet9", "fraction": 0.05, "batch_size": 16, "lr": 1e-3}, 5e-2),
        (2, {"model": "vit", "dropout": 0.1, "fraction": 0.1, "optimizer": "adam"}, 1e-4),
    ],
)
def test_an_epoch_is_that_of_one_process(
    size: int, options: dict[str, Any], tolerance: float, tmp_path: Path
) -> None:
    """A whole epoch: rounding grows as a run goes on, and with the depth of a net.

    Of ResNet-9's gradients of 16 rows torch itself is 8e-3 from float64's, by its batch norm.
    """
    settings = {"strategy": "norm(max_norm=0.5)", "epochs": 1, **options}
    given = [f"--{n.replace('_', '-')}={v}" for n, v in settings.items()]
    done = processes.torchrun(size, *TRAIN, *given, "--store", "runs", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall("stored in", done.stdout)) == 1
    alone = train(RunConfig(**settings), dataset=load_dataset("digits"), device="cpu")
    stored = Store(tmp_path / "runs")
    assert stored.keys() == (alone.config.key,)
    found = stored.load(alone.config.key)
    assert found.environment["world_size"] == size
    for name in ("loss", "norm", "clipped_norm"):
        np.testing.assert_allclose(found.steps[name], alone.steps[name], rtol=tolerance)
    assert found.steps["loss"][0] == pytest.approx(alone.steps["loss"][0], rel=2e-6)
    assert found.score == pytest.approx(alone.score, abs=0.02)


def test_wrong_input_is_one_sentence_and_two(tmp_path: Path) -> None:
    done = processes.torchrun(2, *TRAIN, "-s", "norm(max_nrm=1)", folder=tmp_path)
    assert done.returncode == 1  # torchrun's own
    assert len(sentences(done)) == 1
    assert "did you mean 'max_norm'" in sentences(done)[0]
    assert {"2"} <= set(re.findall(r"exitcode\s*: (-?\d+)", done.stderr)) <= {"2", "-15"}


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_all_at_once(who: int, tmp_path: Path) -> None:
    command = [*TRAIN, "--epochs", "1000"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*launcher, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as running:  # fmt: skip
        victim = _process_of(running.pid, who)
        time.sleep(8)  # it trains by now
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        _, err = running.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert running.returncode != 0
    said = [line for line in err.splitlines() if line.startswith("gclip: ")]
    assert len(said) <= 1


def _process_of(parent: int, rank: int) -> int:
    """The process with that number; Linux tells."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                environ = entry.read_bytes().split(b"\0")
                status = (entry.parent / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(status[1]) == parent and f"RANK={rank}".encode() in environ:
                return int(entry.parent.name)
        time.sleep(0.2)
    raise AssertionError("torchrun has started nothing")
