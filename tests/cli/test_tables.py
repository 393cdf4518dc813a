"""The tables at any width: nothing cut, nothing split, every number that of ``--json``."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.cli import main
from gclip.text import screen
from gclip.text.table import Column, TextTable, fill, tokens

WIDTHS = (60, 80, 100, 200, None)  # None: into a pipe, where nothing says how wide
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
STRATEGIES = ("none", "norm", "agc(clip_factor=0.1585)", "zclip")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a comparison whose runs are there."""
    store = str(tmp_path_factory.mktemp("tables") / "runs")
    chosen = [word for each in STRATEGIES for word in ("-s", each)]
    tiny = ["--fraction", "0.1", "--epochs", "1", "--device", "cpu", "--no-figures"]
    command = ["compare", *chosen, *tiny, "--seeds", "2", "--store", store, "--workers", "1"]
    assert main(command) == 0
    return command


def printed(
    command: list[str], width: int | None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    assert main(command) == 0
    return str(capsys.readouterr().out)


def shown(row: dict[str, Any]) -> dict[str, str]:
    """What a row of the JSON is in a table, by heading, worked out here by itself."""

    def percent(value: float | None, digits: int = 1) -> str:
        text = "–" if value is None else f"{100 * value:.{digits}f}"
        return "0.0" if text == "-0.0" else "0" if text == "-0" else text

    both = row["both"] and row["both"] >= min(row["pairs"], 6)
    names = ("difference_trained", "diff_trained_low", "diff_trained_high")
    value, low, high = (
        row[n] for n in (names if both else ("difference", "diff_low", "diff_high"))
    )
    difference = "–"
    if value is not None:
        difference = ("+" if value > 0 else "") + percent(value)
        if low is not None and math.isclose(low + high, 2 * value, abs_tol=1e-9):
            difference += f" ± {percent((high - low) / 2)}"
        elif low is not None:
            difference += f" [{percent(low, 0)},{percent(high, 0)}]"
    ends = f"[{percent(row['low'], 0)},{percent(row['high'], 0)}]"
    return {
        "accuracy": f"{percent(row['accuracy'])} {ends}",
        "trained": f"{row['trained']}/{row['n']}",
        "IQM": percent(row["iqm_trained"]),
        "vs none": difference,
        "limited": f"{percent(row['limited_rate'])} %",
        "s": f"{row['seconds']:.1f}",
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_every_value_of_a_comparison_is_the_jsons(
    width: int | None, compared: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    rows = json.loads(printed([*compared, "--json"], width, capsys, monkeypatch))["table"]
    out = printed(compared, width, capsys, monkeypatch)
    assert max(map(len, out.splitlines())) <= max(width or 100, 80)  # a path may be longer
    table, _, below = out.partition("\nAccuracy in %")
    gone = re.findall(r"[^,]+", table.partition("No room for: ")[2].partition(".")[0])
    gone = [" ".join(each.split()) for each in gone]
    table = table.partition("No room for: ")[0]
    lines = table.splitlines()
    starts = {
        row["strategy"]: next(i for i, line in enumerate(lines) if line.startswith(row["strategy"]))
        for row in rows
    }
    ends = sorted([*starts.values(), len(lines)])
    for row in rows:
        start = starts[row["strategy"]]
        end = next(e for e in ends if e > start)
        part = " ".join(lines[start:end]).removeprefix(row["strategy"])
        part = part.partition(" made the same runs")[0]
        expected = {name: text for name, text in shown(row).items() if name not in gone}
        for name, text in expected.items():
            assert text in " ".join(part.split()), (name, part)
        numbers = {n for text in expected.values() for n in NUMBER.findall(text)}
        assert set(NUMBER.findall(part)) <= numbers, part
        if "verdict" not in gone:
            assert all(word in part for word in row["verdict"].split())
    assert "shrank by more than 1 %" in " ".join(below.split())


def test_rows_that_are_the_same_runs_are_named(
    compared: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    found = json.loads(printed([*compared, "--json"], 100, capsys, monkeypatch))
    assert any({"norm", "zclip"} <= set(group) for group in found["same"])
    assert not any("agc(clip_factor=0.1585)" in group for group in found["same"])
    assert "made the same runs" in printed(compared, 100, capsys, monkeypatch)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize(
    "command", [["list"], ["study", "list"], ["show", "agc(clip_factor=0.1585)"]]
)
def test_no_command_writes_beyond_the_terminal(
    command: list[str],
    width: int,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = printed(command, width, capsys, monkeypatch)
    assert max(map(len, out.splitlines())) <= width
    if command[0] == "show":
        assert "agc(clip_factor=0.1585)" in out


def test_any_table_at_any_width_has_every_word_and_number_whole() -> None:
    random = np.random.default_rng(0)
    names = ("agc(clip_factor=0.1585)", "norm(max_norm=1, scope=unit)", "none", "percentile")
    for _ in range(200):
        columns = [Column(heading="strategy", words=True)]
        columns += [
            Column(heading=f"heading {place}", words=bool(random.integers(2)),
                   leaves=int(random.integers(3)), least=int(random.integers(12)))
            for place in range(random.integers(1, 7))
        ]  # fmt: skip
        table = TextTable(columns=columns)
        for row in range(3):
            cells = [
                f"word{row} of {random.integers(1000)} like {random.choice(names)}"
                if column.words
                else f"{random.normal():+.1f} [{random.integers(99)},{random.integers(99)}]"
                for column in columns[1:]
            ]
            table.add(str(random.choice(names)), *cells)
        width = int(random.integers(40, 200))
        text = table.text(width)
        assert max(map(len, text.splitlines())) <= width
        flat = " ".join(text.split())
        gone = [c.heading for c in columns if f"{c.heading}" in flat.partition("No room for: ")[2]]
        assert all(column.leaves for column in columns if column.heading in gone)
        for column, cells_of in zip(columns, zip(*table.rows, strict=True), strict=True):
            if column.heading in gone:
                continue
            for cell in cells_of:
                for part in tokens(cell) if column.words else cell.split():
                    assert part in flat, (part, width)


def test_what_may_leave_goes_first_and_is_named() -> None:
    columns = [
        Column(heading="name", words=True),
        Column(heading="first", leaves=2),
        Column(heading="second", leaves=1),
    ]
    table = TextTable(columns=columns, elsewhere="a file has them")
    table.add("x" * 20, "1234567", "7654321")
    assert "No room" not in table.text(38)
    text = table.text(37)
    assert "1234567" not in text
    assert "7654321" in text
    said = " ".join(text.split())
    assert "No room for: first. A terminal of 38 columns (or COLUMNS=38)" in said
    assert "a file has them" in said
    assert "first, second" in " ".join(table.text(28).split())


def test_sentences_keep_spellings_numbers_and_options_whole() -> None:
    text = "with norm(max_norm=1, scope=unit) at most 10 % need --seeds 10 (as told above)"
    assert tokens(text)[1] == "norm(max_norm=1, scope=unit)"
    for width in range(28, 70):
        lines = fill(text, width)
        assert max(map(len, lines)) <= width
        assert " ".join(lines) == text
        for whole in ("norm(max_norm=1, scope=unit)", "10 %", "--seeds 10"):
            assert any(whole in line for line in lines)
    assert tokens("max( is never closed") == ["max(", "is", "never", "closed"]


def test_the_width_is_that_of_columns_else_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "73")
    assert screen.width() == 73
    for nothing in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", nothing)
        assert screen.width() == 100  # pytest's stdout is no terminal


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_in_a_terminal_the_width_is_the_terminals() -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 64, 0, 0))
    code = "from gclip.text import screen; screen.echo(str(screen.width()))"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True, env=environment)
    assert os.read(ours, 100).split() == [b"64"]
    os.close(ours)
    os.close(theirs)
