"""A net and data of a user's own: compared, tuned, surveyed, drawn, killed and resumed by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gclip import results
from gclip.cli import main
from gclip.core.plugins import load_plugins
from gclip.training import RunConfig, load_data, seeds, train
from gclip.training.problem_data import ProblemData
from gclip.training.run_state import RunState

PLUGIN = Path(__file__).with_name("users_file.py")
TASK = "my-waves(frequency=3)"
SHARED = ("--plugin", str(PLUGIN), "--task", TASK, "--device", "cpu")


def gclip(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints."""
    capsys.readouterr()
    code = main([*arguments, *SHARED])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def by_hand(seed: int, max_norm: float) -> tuple[list[float], float]:
    """The losses and the test error of a run, in a loop that a user would write."""
    data = load_data(TASK)
    x, y = data.train_images, data.train_labels
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(seed, "weights"))
        net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
    order = seeds.generator(seed, "order")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    losses = []
    for _ in range(2):
        for chosen in torch.randperm(80, generator=order).split(16):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x[chosen]), y[chosen])
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
            for parameter in net.parameters():
                if norm > max_norm:
                    parameter.grad *= max_norm / norm
            optimizer.step()
            losses.append(float(loss.detach()))
    with torch.no_grad():
        error = nn.functional.mse_loss(net(data.test_images), data.test_labels)
    return losses, float(error)


def test_a_run_is_the_loop_by_hand() -> None:
    load_plugins(PLUGIN)
    with torch.random.fork_rng():
        torch.set_num_threads(1)
        losses, _ = by_hand(0, np.inf)
    never = train(RunConfig(task=TASK, strategy="none"), device="cpu")
    assert never.steps["loss"].tobytes() == np.float32(losses).tobytes()
    losses, error = by_hand(2, 0.2)
    clipped = train(RunConfig(task=TASK, strategy="norm(max_norm=0.2)", seed=2), device="cpu")
    np.testing.assert_allclose(clipped.steps["loss"], losses, rtol=1e-5)
    assert clipped.score == pytest.approx(error, rel=1e-5)


def test_it_is_compared_killed_resumed_tuned_surveyed_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_plugins(PLUGIN)
    options = ("-s", "none", "-s", "norm(max_norm=0.2)", "--seeds", "6", "--fleet", "off")
    command = [sys.executable, "-m", "gclip", "compare", *SHARED, *options, "--no-figures"]
    killed = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(runs.glob("*/result.json")):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path.parent.name for path in runs.glob("*/result.json")}
    assert before
    found = json.loads(gclip(capsys, "compare", *options, "--workers", "1", "--json"))
    assert found["runs"]["total"] == 12
    assert found["runs"]["read"] >= len(before)
    assert [row["strategy"] for row in found["table"]] == sorted(
        (row["strategy"] for row in found["table"]),
        key=lambda name: next(r["score"] for r in found["table"] if r["strategy"] == name),
    )
    assert all(Path(tmp_path / path).stat().st_size for path in found["figures"])
    assert found["figures"]
    # What a killed comparison has made in the end is what one run by itself makes.
    for key in found["keys"]:
        stored = results.Store(runs).load(key)
        again = train(stored.config, device="cpu")
        assert stored.steps["loss"].tobytes() == again.steps["loss"].tobytes()
        assert stored.score == again.score
    study = gclip(
        capsys, "study", "run", "thresholds", "-s", "norm", "--trials", "3", "--workers", "1"
    )
    assert "validation mean squared error" in " ".join(study.split())
    assert f"--task '{TASK}'" in " ".join(study.split())
    survey = gclip(capsys, "survey", "-s", "norm", "--no-figures")
    assert "norm(max_norm=" in survey
    for text in (study, survey):
        assert "accuracy" not in text


def test_the_general_path_is_the_fast_one_to_the_bit() -> None:
    from gclip.training.problem_run import ProblemRun

    load_plugins(PLUGIN)
    for config in (
        RunConfig(task=TASK, strategy="norm(max_norm=0.2)", seed=1),
        RunConfig(fraction=0.1, epochs=2, strategy="agc", split="validation"),
    ):
        data = load_data(config.task)
        expected = train(config, dataset=data, device="cpu")
        device = torch.device("cpu")
        with torch.random.fork_rng():
            torch.set_num_threads(1)
            run = ProblemRun(expected.config, ProblemData(name=data.name, value=data), device)
            # The fast path's own roles, so that both see the same batches.
            for role in ("order", "augmentation"):
                run.state._generators[role] = seeds.generator(config.seed, role)
            while run.epoch < config.epochs:
                assert run.train_epoch(lambda: True)
                run.measure(0.0)
        found = run.result("finished", "", seconds=0.0, environment={})
        assert isinstance(run.state, RunState)
        assert found.steps["norm"].tobytes() == expected.steps["norm"].tobytes()
        assert found.steps["loss"].tobytes() == expected.steps["loss"].tobytes()
        assert found.score == pytest.approx(expected.score, rel=1e-6)
