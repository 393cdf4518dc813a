"""What a Markdown page shows, run as it stands there: Python, commands, and files it writes.

A page is read from top to bottom, in one folder. A block after ``<!-- name.py -->`` is a file;
other Python is executed, all of a page in one namespace; of shell blocks the lines that begin with
``gclip`` are run. Nothing of the text is changed: `small` makes what it says take seconds, by other
defaults than the user's (of epochs and images, and of the promises that `gclip check` looks at), by
fewer seeds and trials than are asked for; `unrendered` by figures that are made but not rendered.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.cli import main

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?:<!-- (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)
OPTIONAL = ("accelerate", "lightning", "tensorboard", "transformers")
"""Libraries that a page may show and a machine may lack; there, blocks that import them are left
out, but none is where ``GCLIP_FRAMEWORKS`` is set."""
TINY = {"fraction": 0.1, "epochs": 1, "batch_size": 64}
TRIALS, SEEDS = 2, 2
SLOW = ("another_process", "compiled_steps")
"""Promises that take seconds, which the contracts' own tests look at."""


@dataclass(frozen=True)
class Block:
    """One block of a page: its language, its text, and the file that it is, if it is one."""

    language: str
    text: str
    file: str | None
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """All blocks that name their language, in order."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(found["language"], found["text"], found["file"], line)


def commands(text: str) -> list[str]:
    """The gclip commands of a shell block, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("gclip ")]


def words(command: str) -> list[str]:
    """A command's arguments, as a shell would read them."""
    return shlex.split(command, comments=True)[1:]


def lacking(text: str) -> bool:
    """Whether Python or a command needs a library that is not installed here."""
    if os.environ.get("GCLIP_FRAMEWORKS"):
        return False
    imports = re.findall(r"^(?:from|import) .*|--tensorboard", text, re.MULTILINE)
    needed = {name for name in OPTIONAL if re.search(rf"\b{name}\b", " ".join(imports))}
    return any(importlib.util.find_spec(name) is None for name in needed)


def run_page(
    page: Path, names: dict[str, Any], folder: Path, skip: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Run all that a page shows, in `folder`, which is the current one.

    Args:
        names: what the page's Python takes for granted; afterwards all that it has made.
        skip: commands that cannot be run here.

    Returns:
        The commands that were run.
    """
    done = []
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.file is not None:
            file = folder / block.file
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text)
        elif block.language == "python" and not lacking(block.text):
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(page), "exec"), names)
        elif block.language == "sh":
            for command in commands(block.text):
                if not skip(command):
                    code = _run(command, folder)
                    assert code == 0, f"{where}: {command} ended with exit code {code}"
                    done.append(command)
    return done


def _run(command: str, folder: Path) -> int:
    """A command's exit code; what stands behind ``>`` is the file that it prints into."""
    called, _, target = command.partition(" > ")
    if not target:
        return main(words(called))
    with (folder / target.strip()).open("w") as file, contextlib.redirect_stdout(file):
        return main(words(called))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, in which all that trains is small; returns it.

    There is a folder ``DIR`` in it with class folders of images; files in ``figures`` and
    ``studies`` count as gclip's own.
    """
    import gclip.training as training
    from gclip import figures, studies
    from gclip.testing.promise import Contract
    from gclip.training.contract.problem_subject import ProblemSubject
    from gclip.training.tasks import problem_of
    from gclip.tuning import study

    comparing = importlib.import_module("gclip.execution.compare")  # the function hides it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GCLIP_CACHE", str(tmp_path / "cache"))
    defaults, request = training.task_defaults, study.Request
    pair = comparing.paired_configs

    def little(task: str) -> Any:
        problem = problem_of(task)
        if isinstance(problem, training.Supervised):
            return defaults(task).replace(**TINY)
        subject = ProblemSubject(problem)  # as small as it says it can be
        return subject.config().replace(epochs=1, seed=0)

    def short(**asked: Any) -> Any:
        asked["trials"] = min(asked.get("trials") or TRIALS, TRIALS)
        asked["seeds"] = tuple(asked.get("seeds") or range(SEEDS))[:SEEDS]
        return request(**asked)

    monkeypatch.setattr(training, "task_defaults", little)
    monkeypatch.setattr(
        comparing,
        "paired_configs",
        lambda chosen, seeds, base: pair(chosen, tuple(seeds)[:SEEDS], base),
    )
    monkeypatch.setattr(study, "Request", short)
    selected = Contract.selected

    def quick(self: Contract[Any], only: Any) -> Any:
        every = selected(self, only)
        return every if only else tuple(each for each in every if each.name not in SLOW)

    monkeypatch.setattr(Contract, "selected", quick)
    monkeypatch.setattr("gclip.execution.machine.cores", lambda: 1)
    for package in (figures, studies):
        name = package.__name__.rpartition(".")[2]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / name)])
    _images(tmp_path / "DIR")
    return tmp_path


def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but neither laid out nor rendered: tests/figures is about that."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from gclip import figures

    empty = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda self, figure: None)
    monkeypatch.setattr(figures, "image_of", lambda figure, kind, *, dpi=None: empty[kind])


def _images(folder: Path) -> None:
    """Class folders of random images."""
    from PIL import Image

    chance = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for place in range(count):
                pixels = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{place}.png")
