"""A process that trains what it is asked for, started once: Python and torch take seconds."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

from gclip.core.plugins import import_file
from gclip.core.source_location import told
from gclip.testing.applicability import DoesNotApply
from gclip.training.config import RunConfig
from gclip.training.contract.bits import bits_of_run
from gclip.training.contract.world import world
from gclip.training.tasks import load_data
from gclip.training.trainer import train

_running: list[subprocess.Popen[str]] = []
_loaded: set[tuple[str, str]] = set()
"""What the running process has imported: two files that take the same name cannot share one."""


def home_of(thing: Any) -> tuple[str, str]:
    """The module of a class or function, and its file.

    Raises:
        DoesNotApply: it is written where no other process finds it.
    """
    if "<locals>" in thing.__qualname__:
        raise DoesNotApply("it is defined inside a function, where no other process finds it")
    try:
        file = inspect.getsourcefile(thing)
    except (OSError, TypeError):  # a notebook's cell
        file = None
    if file is None or not Path(file).is_file():
        raise DoesNotApply("it is defined in no file that another process could read")
    return thing.__module__, file


def answer_of(request: dict[str, Any]) -> dict[str, Any]:
    """What the other process finds: the bits and the losses of a run.

    Raises:
        RuntimeError: it fails, or has ended.
    """
    process = _started({tuple(home) for home in request["homes"]})
    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    try:
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
    except OSError:
        line = ""
    if not line:
        _end()
        raise RuntimeError("the other process has ended")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RuntimeError(f"in another process: {answer['error']}")
    return answer


def main() -> None:
    """The other process: a request a line on stdin, an answer a line on stdout."""
    answers = sys.stdout
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):  # what a problem prints is no answer
            try:
                answer = _answer(json.loads(line))
            except Exception as error:
                answer = {"error": told(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    for module, file in request["homes"]:
        if not module.startswith("gclip."):
            import_file(module, Path(file))
    config = RunConfig.from_json(request["config"])
    with world(0):
        data = load_data(config.task, request["folder"], download=False)
        result = train(config, dataset=data, device="cpu", threads=1)
    losses = [None if each != each else each for each in result.steps["loss"].tolist()]
    return {"bits": bits_of_run(result), "losses": losses}


def _started(homes: set[tuple[str, str]]) -> subprocess.Popen[str]:
    homes = {home for home in homes if not home[0].startswith("gclip.")}
    usable = not _loaded or homes <= _loaded
    if usable and _running and _running[0].poll() is None:
        _loaded.update(homes)
        return _running[0]
    _end()
    _loaded.update(homes)
    # Hashes of text then differ from process to process, as they do for users.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    path = os.pathsep.join(each for each in sys.path if each)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "PYTHONPATH": path},
    )
    _running.append(process)
    return process


@atexit.register
def _end() -> None:
    """End the other process: it stops when nobody asks any more."""
    _loaded.clear()
    while _running:
        process = _running.pop()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()
