"""What a benchmark says while it measures: lines, and in a terminal how long it has been at one."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from gclip.cli.bench_progress import BenchProgress


class Screen(io.StringIO):
    """Standard error that is a terminal, or is none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_a_line_each_and_in_a_terminal_the_seconds(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    progress = BenchProgress(2, before="reading data")
    monkeypatch.setattr(progress, "_clock", threading.Thread(target=lambda: None))
    with progress:
        progress("one")
        monkeypatch.setattr(progress, "_began", time.monotonic() - 75)
        looks = iter([False, False, True])  # two ticks, then it is over
        monkeypatch.setattr(progress._over, "wait", lambda seconds: next(looks))
        if terminal:
            progress._tick()
    lines = [line for line in screen.getvalue().replace("\r", "").split("\n") if line]
    clear = "\033[K"
    if terminal:
        assert lines[0] == "reading data"
        assert lines[1].removeprefix(clear) == "measuring one, 1 of 2"
        assert lines[2] == f"1:15{clear}1:15{clear}{clear}"
    else:
        assert lines == ["reading data", "measuring one, 1 of 2"]
