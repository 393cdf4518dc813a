"""Standard streams of any kind: a result is never lost to its printing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gclip.cli import main

TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


class Stream(io.TextIOWrapper):
    """Standard output in some encoding, and what was written to it."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")

    def text(self) -> str:
        self.flush()
        written: Any = self.buffer
        return str(written.getvalue().decode(self.encoding))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_letter_is_printed_somehow(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = {}
    for arguments in (("show", "agc"), ("list", "--family", "fixed limit"), ("show", "ägc")):
        out, err = Stream(encoding), Stream(encoding)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        answers[arguments] = (main(list(arguments)), out.text(), err.text())
    monkeypatch.undo()
    code, out_text, _ = answers["show", "agc"]
    assert code == 0
    norm = {"utf-8": "‖g_u‖ ≤ λ", "ascii": "||g_u|| <= lambda"}.get(encoding, "||g_u|| <= lambda")
    assert norm in out_text
    assert "at 0x" not in out_text
    assert answers["list", "--family", "fixed limit"][0] == 0
    code, _, complaint = answers["show", "ägc"]
    assert code == 2
    assert "gclip: error:" in complaint


def test_json_is_the_same_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for encoding in ("utf-8", "ascii"):
        out = Stream(encoding)
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["show", "agc", "--json"]) == 0
        found.append(json.loads(out.text()))
    monkeypatch.undo()
    assert found[0] == found[1]
    assert "‖" in json.dumps(found[0], ensure_ascii=False)


def test_a_program_without_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", None)
        context.setattr(sys, "stderr", None)
        codes = [main(["train", "-s", "norm", *TINY]), main(["show", "nonsense"])]
        for stream in (sys.stdout, sys.stderr):
            stream.close()
    assert codes == [0, 2]
    assert len(list(Path("runs").glob("*/result.json"))) == 1


class Full(Stream):
    """A disk without room, until it is closed."""

    def flush(self) -> None:
        if not self.closing:
            raise OSError(28, "No space left on device")

    closing = False

    def reconfigure(self, **options: Any) -> None:
        """Or it would be flushed."""


def test_a_full_disk_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as context:
        full = Full("utf-8")
        context.setattr(sys, "stdout", full)
        code = main(["train", "-s", "norm", *TINY])
        full.closing = True
    assert code == 1
    said = capsys.readouterr().err
    assert "the answer cannot be written to standard output (No space left on device)" in said
    assert "Traceback" not in said
    assert main(["train", "-s", "norm", *TINY]) == 0
    assert "read from" in capsys.readouterr().out
