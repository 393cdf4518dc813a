"""``gclip compare`` and ``gclip figures``: the table, the figures, and coming back."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gclip.results import Store
from gclip.results.table_text import comparison_table

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")
TWO = ("compare", "-s", "none", "-s", "norm", *TINY, "--workers", "1")


def test_a_comparison_and_reading_it_again(gclip: Command, tmp_path: Path) -> None:
    first = gclip(*TWO, "--seeds", "2", "--out", "drawn")
    assert first.code == 0
    assert max(map(len, first.out.splitlines()[:-1])) <= 101
    for said in ("none", "norm", "too few", "/2  ", "vs none", "of the way from chance"):
        assert said.strip() in " ".join(first.out.split())
    assert "with 10 it can: --seeds 10." in " ".join(first.out.split())
    assert "4 runs: 0 read from runs, 4 trained" in first.out
    assert "4 of 4 runs" in first.err
    assert "edge of stability" not in first.out, "these are not the defaults"
    figures = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert {"scores.png", "scores.svg"} <= figures
    # More seeds: only they are trained.
    more = gclip(*TWO, "--seeds", "3", "--no-figures", "--json")
    assert more.json["runs"] == {"total": 6, "read": 4, "trained": 2, "failed": []}
    assert {row["strategy"]: row["n"] for row in more.json["table"]} == {"none": 3, "norm": 3}
    assert more.json["baseline"] == "none"
    assert more.json["figures"] == []
    # The figures of the store, without training.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}
    again = gclip("figures", "--figure", "scores", "--out", "again")
    assert again.code == 0
    assert again.out.split() == ["again/scores.png", "again/scores.svg"]
    how = ("--format", "pdf", "--width", "page", "--no-title", "-s", "none", "--json")
    paper = gclip("figures", "--figure", "scores", "--out", "again", *how)
    assert paper.json == {"figures": ["again/scores.pdf"]}
    assert b"norm" not in (tmp_path / "again" / "scores.pdf").read_bytes()
    listed = gclip("figures", "--list", "--json").json["figures"]
    assert listed["forest"].startswith("Who is better than the baseline?")
    for wrong in (("--style", "drak"), ("--width", "1in"), ("--dpi", "1"), ("-s", "nonne")):
        answer = gclip("figures", *wrong)
        assert answer.code == 2, wrong
        assert answer.err.count("\n") <= 4, answer.err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}


def test_without_none_the_first_is_the_baseline(gclip: Command) -> None:
    answer = gclip("compare", "-s", "norm(max_norm=0.1)", "-s", "value", *TINY, "--workers", "1",
                   "--seeds", "0,", "--no-figures")  # fmt: skip
    assert answer.code == 0
    assert "Differences are to norm(max_norm=0.1), because none does not take part." in answer.out


def test_failed_runs_are_shown_and_the_exit_code_is_1(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gclip.training as training

    train = training.train

    def failing(config: Any, **more: Any) -> Any:
        if config.strategy == "norm":
            raise MemoryError("no memory left")
        return train(config, **more)

    monkeypatch.setattr(training, "train", failing)
    answer = gclip(*TWO, "--seeds", "1", "--no-figures")
    assert answer.code == 1
    assert "failed: norm seed 0: MemoryError: no memory left" in answer.out
    assert "failed: norm seed 0: MemoryError: no memory left" in answer.err
    assert gclip(*TWO, "--seeds", "1", "--no-figures", "--json").json["runs"]["failed"] == [
        {"strategy": "norm", "seed": 0, "message": "MemoryError: no memory left"}
    ]
    monkeypatch.undo()


def test_the_defaults_say_that_they_are_at_the_edge(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gclip import execution

    compare_configs = execution.compare_configs

    def quick(configs: Any, *arguments: Any) -> Any:
        quicker = [config.replace(fraction=0.1, epochs=1) for config in configs]
        return compare_configs(quicker, *arguments)

    monkeypatch.setattr(execution, "compare_configs", quick)
    # As many seeds as the comparisons need: ten for two strategies, whoever they are.
    said = gclip("compare", "-s", "none", "--no-figures", "--device", "cpu", "--json").json
    assert [row["n"] for row in said["table"]] == [10]
    assert said["seeds_needed"] == 10
    said = gclip("compare", "-s", "none", "--seeds", "0,", "--no-figures", "--device", "cpu").out
    assert "near the edge of stability" in said
    assert "A tame setting: gclip compare --lr " in said


def test_a_plugin_from_a_file(gclip: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        '''
from dataclasses import dataclass
import gclip

@gclip.register("tenth")
@dataclass(frozen=True, kw_only=True)
class Tenth(gclip.Strategy):
    """A tenth."""
    def limit(self, seen, memory):
        return 0.1 * seen.norm
'''
    )
    answer = gclip("compare", "--plugin", "mine.py", "-s", "tenth", "-s", "norm", *TINY,
                   "--seeds", "1", "--no-figures", "--json", "--workers", "2")  # fmt: skip
    assert answer.code == 0
    assert answer.json["baseline"] == "norm", "never one's own by accident"
    assert answer.json["runs"]["trained"] == 2


def test_the_table_fits_100_columns_in_the_worst_case() -> None:
    import pandas as pd

    row = {
        "strategy": "percentile(p=12.5, scope=tensor)",
        "n": 10,
        "pairs": 10,
        "score": 0.912,
        "low": 0.8,
        "high": 1.0,
        "iqm": 0.9,
        "trained": 10,
        "iqm_trained": 0.912,
        "difference": 0.812,
        "diff_low": 0.6,
        "diff_high": 1.024,
        "both": 10,
        "difference_trained": 0.812,
        "diff_trained_low": 0.6,
        "diff_trained_high": 1.024,
        "p": 0.3,
        "p_holm": 0.312,
        "failed": 0,
        "evidence": "no difference shown",
        "clip_rate": 1.0,
        "limited_rate": 0.9,
        "verdict": "step-size limiter",
        "diverged": 1.0,
        "div_low": 0.7,
        "div_high": 1.0,
        "seconds": 12345.6,
    }
    table = comparison_table(pd.DataFrame([row]), "norm(max_norm=0.1)")
    for width in (60, 80, 100, 200):
        text = table.text(width)
        assert max(map(len, text.splitlines())) <= width
        always = ("percentile(p=12.5, scope=tensor)", "91.2 [80,100]", "+81.2 ± 21.2", "10/10")
        for said in (*always, "p=.312"):
            assert said in text
        # The rest is there, or the table says that it is not.
        for heading, said in (("limited", "90.0 %"), ("IQM", "91.2"), ("s", "12345.6")):
            assert said in text or f", {heading}" in text.partition("No room for: ")[2], heading
    assert "No room" not in table.text(200)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    gclip: Command, tmp_path: Path
) -> None:
    arguments = ["compare", "-s", "norm", "--seeds", "14", "--epochs", "2", "--fraction", "0.4",
                 "--device", "cpu", "--workers", "2", "--no-figures", "--json",
                 "--fleet", "off"]  # fmt: skip
    command = subprocess.Popen(
        [sys.executable, "-m", "gclip", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # Where the tests run in the background, SIGINT is ignored, and that would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stderr is not None
    while not re.search(r"\b[1-9]\d? of 14 runs", command.stderr.readline()):
        assert command.poll() is None
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (130, "")
    kept = Store(tmp_path / "runs").keys()
    assert 1 <= len(kept) < 14
    assert "gclip: interrupted: " in err
    assert "kept in runs; the same command makes the other" in err
    answer = gclip(*arguments, "--workers", "1")  # the last one counts
    assert answer.code == 0
    assert answer.json["runs"]["read"] == len(kept)
    assert answer.json["runs"]["trained"] == 14 - len(kept)
    assert json.loads(answer.out)["table"][0]["n"] == 14


def test_a_command_that_repeats_verifies_each_run_once(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gclip.results import store

    tiny = ("--fraction", "0.1", "--epochs", "1", "--device", "cpu", "--workers", "1")
    command = ("compare", "-s", "none", "-s", "norm", "--seeds", "2", *tiny)
    gclip(*command, "--no-figures")
    verified: list[str] = []
    unpack = store.unpack

    def counted(key: str, folder: Path) -> Any:
        verified.append(key)
        return unpack(key, folder)

    monkeypatch.setattr(store, "unpack", counted)
    assert gclip(*command).code == 0
    assert len(verified) == len(set(verified)) == 4


def test_a_read_only_store_is_shown_where_it_is_complete(
    gclip: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["compare", "-s", "norm", "--seeds", "1", "--fraction", "0.05", "--epochs", "1",
                 "--device", "cpu", "--workers", "1"]  # fmt: skip
    assert gclip(*arguments, "--no-figures").code == 0

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Store, "_probe", refuse)
    answer = gclip(*arguments)
    assert answer.code == 0, answer.err
    assert "runs is read-only: no figures are drawn; --out DIR draws them" in answer.err
    assert "1 run: 1 read from runs, 0 trained" in answer.out
    assert not (tmp_path / "runs" / "figures").exists()
    more = gclip(*arguments, "--seeds", "2")
    assert more.code == 2
    assert "cannot keep runs in 'runs': Read-only file system" in more.err


def test_an_option_names_the_value_that_it_refuses(gclip: Command) -> None:
    for written in (["--workers", "x"], ["--workers=x"]):
        answer = gclip("compare", *written)
        assert answer.code == 2
        assert "'--workers'" in answer.err
        assert "'x'" in answer.err
