"""``gclip bench fleet``: many runs as one program, beside the same runs one after another.

Two comparisons. In one process, a fleet beside the trainer's own loop, both with all of the
machine's threads and the same fused optimizer. And the whole machine: a worker of one thread for
each core, with a fleet inside each and without. What is counted are images times models a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from gclip.bench.rates import check_counts, rate_row
from gclip.bench.tutorial import TUTORIAL, tutorial_rate

ALONE = "one after another"
STEPS: Mapping[int, int] = {4: 36, 32: 16}
FEWEST_STEPS = 6
SLOW_STEPS = 3  # of nets whose steps are long enough by themselves
SIZES: Mapping[str, Mapping[int, tuple[int, ...]]] = {
    "lenet": {4: (8, 32), 32: (4, 8, 16), 128: (4, 8)},
    "resnet9": {4: (4, 8), 32: (2, 4), 128: (2,)},
}
"""Runs in a fleet that are measured for a batch size; others may be asked for."""

_BOOT = "from gclip.bench.fleet import serve; serve()"


def sizes_of(model: str, batch: int) -> tuple[int, ...]:
    """The fleets that are measured by default."""
    known = SIZES.get(model, {})
    return known.get(batch, (4, 8) if batch < 64 else (4,))


def rows(
    model: str = "lenet",
    batches: Sequence[int] = (4, 32, 128),
    sizes: Sequence[int] = (),
    *,
    optimizer: str = "adam",
    strategies: Sequence[str] = ("norm",),
    seconds: float = 4.0,
    tutorial: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """``case, peer, speedup, ours, theirs`` (images·models/s), for each batch and fleet size.

    Args:
        model: the net, by its name.
        batches: how many images a batch has.
        sizes: runs in a fleet; by default a few that suit the batch.
        optimizer: by its name.
        strategies: given to the runs of a fleet in turn.
        seconds: each row measures for about that long.
        tutorial: whether to measure the loop that tutorials show, too.
        progress: told what is measured next.

    Returns:
        A row a case and peer, as `gclip.bench.rates.rate_row` gives them.

    Raises:
        UsageError: a number below 1, or a model or strategy that cannot be in a fleet.
    """
    from gclip.execution import cores

    check_counts("batches", batches)
    check_counts("sizes", sizes)
    measured: list[dict[str, Any]] = []
    workers = cores()
    for batch in batches:
        task = {
            "model": model, "batch_size": batch, "optimizer": optimizer,
            "strategies": list(strategies),
        }  # fmt: skip
        fleet_sizes = tuple(sizes) or sizes_of(model, batch)
        best = (0.0, 0)
        for size in fleet_sizes:
            case = f"{model} batch={batch} runs={size}"
            progress(case)
            ours, theirs = _in_one_process({**task, "size": size}, seconds)
            measured.append(
                rate_row(case, f"{ALONE}, {torch.get_num_threads()} threads", ours, theirs)
            )
        with _Machine(workers) as machine:
            for size in fleet_sizes:
                case = f"{model} batch={batch} runs={size} workers={workers}"
                progress(case)
                ours, theirs = machine.race({**task, "size": size}, seconds)
                peer = f"{workers} workers of one thread, {ALONE}"
                measured.append(rate_row(case, peer, ours, theirs))
                best = max(best, (ours, size))
        if tutorial:
            case = f"{model} batch={batch} runs={best[1]} workers={workers}"
            progress(f"{case} beside the tutorial's loop")
            theirs = tutorial_rate(model, batch, optimizer, seconds)
            measured.append(rate_row(case, TUTORIAL, best[0], theirs))
    return measured


def _in_one_process(task: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    """Median rates of the fleet and of one run, an epoch each in turn."""
    alone, fleet = _epochs(task, torch.get_num_threads())
    ours: list[float] = []
    theirs: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(ours) < 4:
        theirs.append(next(alone))
        ours.append(next(fleet))
    return statistics.median(ours), statistics.median(theirs)


def _epochs(task: Mapping[str, Any], threads: int) -> tuple[Iterator[float], Iterator[float]]:
    """Endless rates, one an epoch: of a run by itself, and of a fleet; both warm."""
    from gclip.training import RunConfig, load_dataset
    from gclip.training.device import reproducible
    from gclip.training.fleet.run import FleetRun
    from gclip.training.run import Run

    device = torch.device("cpu")
    digits = load_dataset("digits")
    batch = int(task["batch_size"])
    steps = STEPS.get(batch, FEWEST_STEPS) if task["model"] == "lenet" else SLOW_STEPS
    total = len(digits.train_labels)
    base = RunConfig(
        model=task["model"], batch_size=batch, optimizer=task["optimizer"], epochs=1,
        fraction=min(1.0, batch * steps / total), strategy=task["strategies"][0],
        lr=1e-4 if task["optimizer"].startswith("adam") else 1e-3,
    )  # fmt: skip
    names = [task["strategies"][i % len(task["strategies"])] for i in range(task["size"])]

    def timed(epoch: Callable[[], Any], images: int) -> Iterator[float]:
        while True:
            with reproducible(device, threads):
                start = time.perf_counter()
                epoch()
                yield images / (time.perf_counter() - start)

    with reproducible(device, threads):
        run = Run(base, digits, device)
        fleet_run = FleetRun([base.replace(strategy=name) for name in names], digits, device)
    # Learning rates are those of a constant schedule, so more epochs than planned change nothing.
    alone = timed(lambda: run.train_epoch(lambda: True), run.train_examples)
    fleet = timed(fleet_run.train_epoch, run.train_examples * len(names))
    next(alone), next(fleet)
    return alone, fleet


class _Machine:
    """A worker process of one thread for each core; all get the same order at the same time."""

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> _Machine:
        from gclip.execution.worker_process import environment

        self._workers = [
            subprocess.Popen(
                [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env=environment(threads=1),
            )
            for _ in range(self._count)
        ]  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()

    def race(self, task: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """Median rates of the whole machine with a fleet in each worker, and without."""
        self._ask({"task": dict(task)})
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(5):
            for kind, rates in (("alone", theirs), ("fleet", ours)):
                rates.append(sum(self._ask({"measure": kind, "seconds": seconds / 10})))
        return statistics.median(ours), statistics.median(theirs)

    def _ask(self, order: Mapping[str, Any]) -> list[float]:
        for worker in self._workers:
            if worker.stdin is not None:
                worker.stdin.write(json.dumps(order) + "\n")
                worker.stdin.flush()
        answers = []
        for worker in self._workers:
            line = worker.stdout.readline() if worker.stdout is not None else ""
            if not line:
                raise RuntimeError("a worker of the benchmark ended; its message is above")
            answers.append(float(line))
        return answers


def serve() -> None:
    """What a worker process does: it measures what its input says, until that closes."""
    torch.set_num_threads(1)
    streams: dict[str, Iterator[float]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "task" in order:
            alone, fleet = _epochs(order["task"], 1)
            streams = {"alone": alone, "fleet": fleet}
            print(0.0, flush=True)
            continue
        until = time.perf_counter() + order["seconds"]
        rates: list[float] = []
        # The last epoch counts only if the others still compute, so all go on until the time is up.
        while time.perf_counter() < until or not rates:
            rates.append(next(streams[order["measure"]]))
        print(statistics.harmonic_mean(rates), flush=True)
