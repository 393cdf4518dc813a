"""Ctrl-C and SIGTERM: what is kept is said, in one line, and the exit code is the shell's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gclip.cli import interrupts
from gclip.cli.interrupts import Terminated, signals
from gclip.core import stopping
from gclip.tuning.sqlite import read_study, study_file
from tests.cli.conftest import TINY

Command = Any  # of conftest.py
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Those of a shell: where tests run in the background, SIGINT is ignored."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# What each command calls where its work is, and what it says.
WORK = {
    "train": ("gclip.training.train", ["-s", "norm", *TINY], "nothing of this run is kept"),
    "compare": ("gclip.execution.compare_configs", ["-s", "norm", *TINY], "are finished and kept"),
    "survey": ("gclip.training.norm_survey.survey_norms", TINY, "nothing is kept; the same"),
    "check": ("gclip.testing.examine", ["norm"], "nothing is kept; the same command"),
    "bench clip": ("gclip.bench.clip.rows", [], "nothing is kept; the same command"),
    "study run": (
        "gclip.tuning.coordinator.Coordinator.run",
        ["thresholds", "-s", "norm", "--trials", "1", "--workers", "1", *TINY],
        "the runs that ended are kept in runs; the same command goes on",
    ),
    "list": ("gclip.text.screen.echo", [], "the same command begins again"),
}


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("command", WORK)
def test_every_command_says_what_is_kept(
    command: str, number: signal.Signals, gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, options, said = WORK[command]

    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(number)
        time.sleep(5)  # the handler has raised before

    monkeypatch.setattr(where, stopped)
    answer = gclip(*command.split(), *options)
    assert answer.code == CODES[number]
    lines = [line for line in answer.err.splitlines() if line.startswith("gclip: ")]
    (line,) = lines
    assert line.startswith(f"gclip: {WORDS[number]}: ")
    assert said in answer.err.replace("\n", " ")
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_who_handles_signals_already_goes_on_to() -> None:
    def own(*_: object) -> None:
        pass

    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals(whole_program=True):
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_same_ctrl_c_twice_is_one() -> None:
    """A terminal sends it to all, and a parent once more to its child."""
    with signals(whole_program=False):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)


@posix
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_step_is_finished_unless_it_takes_too_long(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def train(seconds: float) -> None:
        with signals(whole_program=False), stopping.at_a_good_place():
            signal.raise_signal(number)
            time.sleep(seconds)
            done.append("step")
            stopping.obey()
            done.append("never")

    with pytest.raises(KeyboardInterrupt):
        train(0.0)
    monkeypatch.setattr(interrupts, "_PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt) as ended:
        train(60.0)
    assert isinstance(ended.value, Terminated) == (number == signal.SIGTERM)
    assert done == ["step"]
    assert not stopping.is_wanted()


SLOW_TO_END = """
import atexit, sys, time
from dataclasses import dataclass
import gclip

def tidy():
    print("tidying", flush=True)
    time.sleep(60)

atexit.register(tidy)

@gclip.register("waits")
@dataclass(frozen=True, kw_only=True)
class Waits(gclip.Strategy):
    most: float = gclip.tunable(1.0, low=0.1, high=10.0)

    def limit(self, seen, memory):
        print("training", flush=True)
        time.sleep(0.5)
        return self.most
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program, in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "gclip", *arguments, *TINY],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@posix
def test_a_second_ctrl_c_ends_at_once_while_python_shuts_down(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_TO_END)
    command = started(tmp_path, "train", "--plugin", "slow.py", "-s", "waits")
    assert command.stdout is not None
    assert command.stdout.readline() == "training\n"
    command.send_signal(signal.SIGINT)
    while (line := command.stdout.readline()) != "tidying\n":
        assert line == "training\n"
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=120)
    assert command.returncode == 130
    assert re.search(r"gclip: interrupted: step \d of 3 is saved in runs/checkpoints/", said)
    assert len(list((tmp_path / "runs" / "checkpoints").iterdir())) == 1
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


@posix
def test_sigterm_costs_a_trial_no_attempt(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_TO_END.replace("atexit.register(tidy)", ""))
    command = started(
        tmp_path, "study", "run", "thresholds", "--plugin", "slow.py", "-s", "waits",
        "--name", "mine", "--trials", "2", "--workers", "1", "--fleet", "off",
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stdout.readline() == "training\n"
    command.terminate()
    _, said = command.communicate(timeout=120)
    assert command.returncode == 143, said
    assert "gclip: terminated: the runs that ended are kept in runs" in said
    assert "Traceback" not in said
    with read_study(study_file(tmp_path / "runs", "mine")) as study:
        first, again = study.get_trials(deepcopy=False)
    assert (first.state.name, again.state.name) == ("FAIL", "WAITING")
    assert again.user_attrs["replaces"] == first.number
    assert again.user_attrs["attempt"] == 1
