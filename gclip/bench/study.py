"""``gclip bench study``: a whole study from its start, beside the scripts that users write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gclip.bench.rates import check_counts

STRATEGIES = ("none", "norm", "agc")
TRIALS, EPOCHS = 25, 5
SCRIPT = Path(__file__).with_name("study_script.py")


def rows(
    batches: Sequence[int] = (32,),
    *,
    trials: int = TRIALS,
    epochs: int = EPOCHS,
    data: Path | None = None,
    processes: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """A row for gclip and for each user's script: the same study from start to end.

    Tuned are `STRATEGIES`, the learning rate with each threshold, on LeNet with SGD, by a random
    sampler, scored on validation images after every epoch. The scripts are
    `gclip.bench.study_script`: trial after trial on all threads; ``n_jobs``; and processes that
    share a SQLite storage.

    Args:
        batches: how many images a batch has.
        trials: of each strategy.
        epochs: of each trial.
        data: class folders of images; without it the digits.
        processes: how many trials the scripts train at a time.
        progress: told what is measured next.

    Returns:
        ``case, peer`` (who ran it), ``speedup`` (of gclip over it; 1 for gclip), ``seconds`` with
        the start, ``trials_a_minute``, ``outside`` (share of the workers' time that was no
        training), ``peak_mib`` (of its largest process; None where it cannot be told).

    Raises:
        UsageError: a count below 1.
        RuntimeError: one of them failed, or made another number of trials.
    """
    check_counts("batch sizes", batches)
    check_counts("trials, epochs and processes", [trials, epochs, processes])
    measured = []
    for batch in batches:
        case = f"batch {batch}, {trials} trials × {len(STRATEGIES)}"
        ours = 0.0
        for name, run in _runs(batch, trials, epochs, data, processes).items():
            progress(f"{case}: {name}")
            with tempfile.TemporaryDirectory(prefix="gclip-bench-") as folder:
                found = run(Path(folder))
            total = trials * len(STRATEGIES)
            # Processes that share a storage may both begin the last trial.
            if not total <= found["trials"] < total + processes * len(STRATEGIES):
                raise RuntimeError(f"{name} made {found['trials']} trials of {total}")
            ours = ours or found["wall"]
            measured.append({
                "case": case, "peer": name, "speedup": found["wall"] / ours,
                "seconds": found["wall"], "trials_a_minute": 60 * found["trials"] / found["wall"],
                "outside": 1 - found["trained"] / (found["workers"] * found["wall"]),
                "peak_mib": found["peak_mib"],
            })  # fmt: skip
    return measured


def _runs(
    batch: int, trials: int, epochs: int, data: Path | None, processes: int
) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """gclip first, then the scripts, by what they are called."""
    counts = ["--batch-size", str(batch), "--epochs", str(epochs), "--trials", str(trials)]
    words = [sys.executable, str(SCRIPT), "--strategies", *STRATEGIES, *counts]
    if data is not None:
        words += ["--data", str(data)]

    def ours(folder: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "gclip", "study", "run", "thresholds", *counts]
        command += ["--sampler", "random", "--store", str(folder / "runs"), "--out", str(folder)]
        command += ["--lr", "0.15", *(part for name in STRATEGIES for part in ("-s", name))]
        if data is not None:
            command += ["--task", "cifar10", "--model", "lenet", "--data", str(data)]
        found = _timed([command], folder)
        return {**found, **_trained(folder / "runs"), "workers": processes}

    def scripts(commands: list[list[str]], workers: int) -> Callable[[Path], dict[str, Any]]:
        def run(folder: Path) -> dict[str, Any]:
            if len(commands) > 1:
                _create(folder)
            found = _timed(commands, folder)
            answers = [json.loads(text.splitlines()[-1]) for text in found["out"]]
            return {
                **found, "trials": sum(each["trials"] for each in answers),
                "trained": sum(each["seconds"] for each in answers), "workers": workers,
            }  # fmt: skip

        return run

    shared = [*words, "--threads", "1", "--storage", "sqlite:///study.db"]
    return {
        "gclip study run": ours,
        "script, trial after trial": scripts([words], 1),
        f"script, n_jobs={processes}": scripts(
            [[*words, "--jobs", str(processes), "--threads", "1"]], processes
        ),
        f"script, {processes} processes": scripts(
            [[*shared, "--seed", str(place)] for place in range(processes)], processes
        ),
    }


def _create(folder: Path) -> None:
    """The storage that processes share, as its users have to: two that make it at once may crash.
    It is not timed."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for name in STRATEGIES:
            storage = f"sqlite:///{folder / 'study.db'}"
            optuna.create_study(study_name=name, storage=storage, direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)


def _trained(store: Path) -> dict[str, Any]:
    """How many runs a store holds, and for how long they trained."""
    from gclip import results

    runs = results.load(store)
    return {"trials": len(runs), "trained": float(runs["seconds"].sum())}


_LAUNCHER = """
import subprocess, sys
code = subprocess.call(sys.argv[2:])
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = str(peak / (2**20 if sys.platform == "darwin" else 2**10))
except ImportError:
    peak = ""
open(sys.argv[1], "w").write(peak)
sys.exit(code)
"""
"""Starts a command from a small process: a child is taken to be as large as who started it."""


def _timed(commands: Sequence[Sequence[str]], folder: Path) -> dict[str, Any]:
    """Run commands at the same time: seconds until the last has ended, what they printed, and MiB
    of the largest process, where that is told."""
    start = time.perf_counter()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for place, command in enumerate(commands):
            words = [sys.executable, "-c", _LAUNCHER, str(folder / f"peak-{place}"), *command]
            output, error = (folder / f"{name}-{place}" for name in ("output", "errors"))
            with output.open("wb") as out, error.open("wb") as err:
                started.append(
                    subprocess.Popen(
                        words, cwd=folder, stdout=out, stderr=err, start_new_session=True
                    )
                )
        for process in started:
            process.wait()
    finally:
        for process in started:
            _end(process)
    wall = time.perf_counter() - start
    peaks, out_texts = [], []
    for place, (command, process) in enumerate(zip(commands, started, strict=True)):
        if process.returncode:
            said = (folder / f"errors-{place}").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{' '.join(command)} failed: {said.strip()[-400:]}")
        peaks.append((folder / f"peak-{place}").read_text(encoding="utf-8"))
        out_texts.append((folder / f"output-{place}").read_text(encoding="utf-8"))
    known = [float(peak) for peak in peaks if peak]
    return {"wall": wall, "peak_mib": max(known) if known else None, "out": out_texts}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended, and those that it started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
