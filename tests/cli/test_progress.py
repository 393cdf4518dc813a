"""What is shown while a command works, in a file and in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gclip.cli.progress import StepsDisplay
from gclip.execution import Event
from gclip.execution.progress import RunsDisplay
from gclip.text import progress
from gclip.text.progress import Display, load, time_left
from gclip.text.time_left import Estimate
from gclip.training import Progress, RunConfig

Command = Any  # of conftest.py
CONFIG = RunConfig(strategy="norm")


def event(kind: Any, index: int = 0, **more: Any) -> Event:
    return Event(kind=kind, index=index, config=CONFIG, **more)


def at(step: int, steps: int = 10) -> Progress:
    return Progress(
        epoch=0, epochs=1, step=step, steps=steps, loss=0.5, accuracy=None, status="running"
    )


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whatever a command does is said as soon as the display's own thread looks."""
    monkeypatch.setattr(progress, "_QUIET", 0.0)
    monkeypatch.setattr(progress, "TICK", 0.001)
    looked, refresh = threading.Event(), Display._refresh

    def look(display: Display) -> None:
        refresh(display)
        if threading.current_thread() is not threading.main_thread():
            looked.set()

    monkeypatch.setattr(Display, "_refresh", look)
    return looked


def wait_for(looked: threading.Event) -> None:
    looked.clear()
    assert looked.wait(30)


def test_in_a_file_there_is_a_line_for_what_takes_its_time(
    at_once: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunsDisplay(2) as display:
        for what in ("reading data", "measuring whether fleets pay"):
            display.doing(what)
            wait_for(at_once)
        display(event("started"))
        display(event("done"))
        display.doing("drawing figures")
        wait_for(at_once)
    assert capsys.readouterr().err.splitlines() == [
        "reading data",
        "measuring whether fleets pay",
        "1 of 2 runs",
        "drawing figures",
    ]


def test_what_is_quick_is_not_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_QUIET", 3600.0)
    with Display() as display:
        display.doing("reading data")
        display._refresh()
        display.doing("")
    assert capsys.readouterr().err == ""


def test_before_the_first_run_it_says_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    display = RunsDisplay(3)
    display(event("queued"))
    assert display._doing == "starting the first runs"
    display(event("doing", message="measuring whether fleets pay"))
    assert display._doing == "measuring whether fleets pay"
    display(event("doing"))
    assert display._doing == "starting the first runs"
    display(event("started"))
    assert display._doing == ""
    assert display.summary() == "0 of 3 runs · 1 running"


def test_the_first_estimate_is_said_when_it_can_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    display = RunsDisplay(4, then="figures")
    now = [0.0]
    display._time._clock = lambda: now[0]
    display._time._now = 0.0
    with display:
        for index in range(4):
            display(event("queued", index))
        now[0] += 100
        display(event("started"))
        now[0] += 50
        display(event("progress", progress=at(0)))
        assert "left" not in display.summary()
        now[0] += 4
        display(event("progress", progress=at(2)))
        display._time._clock = lambda: 154.0
    err = capsys.readouterr().err
    assert err == "0 of 4 runs · 1 running · about 1:15 left, then figures\n"  # 16 + 3 · 20 seconds


def test_steps_of_one_thing_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    display = StepsDisplay(2)
    display.doing("loading torch")
    assert display.summary() == ""
    display.begin("training norm")
    assert display._doing == ""
    display.train(at(10))
    assert display.summary().startswith("training norm · epoch 1 of 1 · loss 0.5")
    assert display._progress() == (1.0, 2)
    display.begin("training agc")
    assert display._progress() == (1.0, 2)
    assert display.summary().startswith("training agc")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0:01"), (7.3, "0:07"), (38.0, "0:40"), (128.0, "2:15"), (3000.0, "50:00")],
)
def test_an_estimate_has_no_more_digits_than_it_is_worth(seconds: float, said: str) -> None:
    assert time_left(Estimate(seconds, seconds)) == f"about {said} left"


def test_a_range_and_what_comes_then() -> None:
    assert time_left(Estimate(31.0, 119.0), "figures") == "0:30 to 2:00 left, then figures"


def test_a_module_is_named_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_to_load.py").write_text("raise KeyError('half way')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyError):
        load("slow_to_load")
    assert capsys.readouterr().err == "loading slow_to_load\n"
    load("os")
    assert capsys.readouterr().err == ""


LONG = ["list", "show norm", "compare", "train", "survey", "study list", "bench data --data x",
        "check norm", "env", "figures"]  # fmt: skip


@pytest.mark.parametrize("command", LONG)
def test_the_first_line_comes_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    """So that it is there at once, whatever the machine."""
    script = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise SystemExit("not yet")
sys.meta_path.insert(0, NoTorch())
from gclip.cli import main
main({command.split()!r})
heavy = {{"numpy", "pandas", "optuna", "matplotlib", "sklearn", "scipy"}} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    ended = "gclip: error: a plugin or a library ended the program (SystemExit: not yet)"
    assert (done.returncode, done.stderr) == (0, f"loading torch\n{ended}\n"), done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a terminal of the test's own is POSIX's")
def test_in_a_terminal_the_same_line_moves_and_leaves_nothing(tmp_path: Path) -> None:
    import pty

    script = """
from gclip.execution.progress import RunsDisplay
from gclip.execution import Event
from gclip.training import RunConfig
import time
with RunsDisplay(3) as display:
    display.doing("measuring whether fleets pay")
    display._bars.refresh()
    display(Event(kind="started", index=0, config=RunConfig(strategy="norm")))
    display._bars.refresh()
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=theirs, stdout=theirs, cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux's way to say that the other side has closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "measuring whether fleets pay" in text
    assert "0 of 3 runs" in text
    assert "norm seed 0" in text
    assert shown.rstrip().endswith(b"\x1b[2K"), "the lines are taken away at the end"
