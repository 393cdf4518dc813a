"""``gclip bench store``: how long looking into a store takes, and how that grows with its runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gclip.bench.made_runs import STRATEGIES, make_store
from gclip.bench.rates import check_counts

RUNS = (10, 1000, 10_000)
MOST_READ = 500
"""Runs of the comparison that is read: a store of many holds many."""


def rows(
    runs: Sequence[int] = RUNS,
    *,
    figures: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """``case, runs, seconds, us_a_run, exponent`` of each way to look into a store.

    The stores are made here, of runs sealed as the store seals them, on the disk of temporary
    files. ``results.load`` is timed in this process, after its imports; the commands are timed from
    their start, each in a process of its own.

    Args:
        runs: how many runs the stores hold.
        figures: whether one is drawn, too.
        progress: told what is measured next.

    Returns:
        A row a case and store. ``exponent`` is that of the time's growth since the store before:
        1 where it grows as the runs do, less where starting takes most of it.

    Raises:
        UsageError: a store of less than one run.
    """
    check_counts("runs", runs)
    measured: list[dict[str, Any]] = []
    before: dict[str, tuple[int, float]] = {}
    for count in sorted(runs):
        with tempfile.TemporaryDirectory(prefix="gclip-bench-") as folder:
            store = Path(folder) / "runs"
            progress(f"{count} runs: making them")
            make_store(store, count)
            for case, ran in _cases(store, count, figures).items():
                progress(f"{count} runs: {case}")
                start = time.perf_counter()
                ran()
                seconds = time.perf_counter() - start
                fewer, then = before.get(case, (count, seconds))
                grown = (
                    math.log(seconds / then) / math.log(count / fewer) if fewer < count else None
                )
                measured.append({
                    "case": case, "runs": count, "seconds": seconds,
                    "us_a_run": 1e6 * seconds / count, "exponent": grown,
                })  # fmt: skip
                before[case] = count, seconds
    return measured


def _cases(store: Path, count: int, figures: bool) -> dict[str, Callable[[], object]]:
    import pandas as pd  # noqa: F401 - loaded before anything is timed

    from gclip import results

    seeds = max(1, min(count, MOST_READ) // len(STRATEGIES))
    some = STRATEGIES[: min(count, len(STRATEGIES))]
    compare = ["compare", *(part for name in some for part in ("-s", name)), "--seeds", str(seeds)]
    commands = {
        "gclip store list": ["store", "list", "--json", "--store", str(store)],
        "gclip compare, reading": [*compare, "--no-figures", "--json", "--store", str(store)],
    }
    if figures:
        where = ["--store", str(store), "--out", str(store.parent / "out")]
        commands["gclip figures --figure scores"] = ["figures", "--figure", "scores", *where]
    return {
        "results.load": lambda: results.load(store),
        **{name: _process(words, store.parent) for name, words in commands.items()},
    }


def _process(arguments: Sequence[str], folder: Path) -> Callable[[], object]:
    def run() -> None:
        command = [sys.executable, "-m", "gclip", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"gclip {' '.join(arguments)} failed: {done.stderr.strip()[-300:]}")
        if arguments[0] == "compare" and json.loads(done.stdout)["runs"]["trained"]:
            raise RuntimeError("the comparison trained runs that were made to be read")

    return run
