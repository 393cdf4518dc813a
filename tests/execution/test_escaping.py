"""What a stored run calls itself is text in every page and figure, and never markup."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gclip.cli import main
from gclip.execution.comparison import Comparison
from gclip.results import Results, Store
from gclip.results.table import compare_table
from gclip.training import RunConfig, RunResult

MARKUP = "<script>alert('x')</script>--><img src=x onerror=alert(1)>"


def stored(path: Path) -> tuple[Store, list[RunResult]]:
    """Runs of a strategy whose name is markup, as another program would have stored them."""
    store, results = Store(path, create=True), []
    for seed in range(3):
        for strategy, code in (("none", ""), (MARKUP, "0" * 12)):
            config = RunConfig(strategy=strategy, code=code, seed=seed, stepping=0)
            curve = [{"epoch": 1, "step": 4, "train_loss": 1.0, "accuracy": 0.5, "loss": 1.0}]
            steps = {n: np.ones(4, np.float32) for n in ("norm", "loss", "clipped_norm", "limit")}
            results.append(
                RunResult(config=config, accuracy=0.5 + seed / 10, curve=curve, steps=steps)
            )
            store.save(results[-1])
    return store, results


def test_a_notebook_shows_it_as_text(tmp_path: Path) -> None:
    store, results = stored(tmp_path / "runs")
    failed = RunResult.failed(results[-1].config, MARKUP)
    found = Comparison(
        outcomes=(*results, failed),
        table=compare_table(Results.read(store).runs),
        baseline="none",
        store=store,
    )
    shown = found._repr_html_()
    assert shown.count("&lt;script&gt;") >= 2
    tags = set(re.findall(r"</?(\w+)", shown))
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "p"}


def test_a_figure_shows_it_as_text(tmp_path: Path) -> None:
    store, _ = stored(tmp_path / "runs")
    out = tmp_path / "out"
    words = ["figures", "--figure", "scores", "--store", str(store.path), "--out", str(out)]
    assert main(words) == 0
    text = (out / "scores.svg").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert "-->" not in re.sub(r"<!--(?:(?!--).)*-->", "", text, flags=re.DOTALL)
