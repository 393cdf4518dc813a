"""Command lines of every command: options with right, nearly right and wrong values, and noise.

They run in this process as far as something would be trained, measured or drawn: there a refusal
stands in. All that comes before is real, with an empty store and one that has runs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import typer
from hypothesis import strategies as st

import gclip.bench
from gclip.cli import command, main
from gclip.errors import UsageError
from gclip.training import RunConfig, RunResult, tasks
from gclip.training.problem_registry import find_problem
from tests.cli.commands import commands
from tests.fuzz import spellings
from tests.fuzz.examples import check_sentence, in_time

LINES = [
    (tuple(path.split()), each) for path, each in commands() if not getattr(each, "commands", None)
]
PATHS = ("", ".", "runs", "empty", "missing", "../up", "a/b/c", "file.txt", "file.txt/x",
         "train.py",
         "/dev/null", "/proc/self/mem", "ü", "a" * 300, "what?x", "%2e%2e", "-", "--", "~nobody/x",
         "\udcff", "\x1b[31mred", "new\nline", "tr\tab", "runs/.tmp")  # fmt: skip
WORDS = (
    *("digits", "adding(length=5)", "linear", "gan-digits", "images", "torchvision:MNIST", "norm"),
    *("agc", "none", "norm(max_norm=0.1)", "chain(value, norm)", "sgd", "adam", "cosine", "bf16"),
    *("auto", "cpu", "cuda", "mps", "layer", "half", "lenet", "mlp(width=4)", "tutorial", "off"),
    *("thresholds", "lr_ceiling", "scores", "generator=agc", "a=b", "=", "clip_factor=1e-4..1:log"),
    *("tpe", "random", "grid", "median", "accuracy", "0,1,5", "5,", ",", "10", "1:2", "gradient"),
    *("postgresql://u:p@127.0.0.1:1/x", "sqlite:///x", "scale", "json", "no.such.module", "x.py"),
    *spellings.NUMBERS, *spellings.WORDS,
)  # fmt: skip
RIGHT: dict[str, tuple[str, ...]] = {
    "name_of_study": ("thresholds", "lr_ceiling", "sensitivity", "overhead", "noise", "budget"),
    "strategy": ("norm", "agc", "none", "value(clip_value=0.1)", "chain(value, norm)"),
    "task": ("digits", "adding(length=5)", "linear", "gan-digits"), "name": ("norm", "mine"),
    "model": ("lenet", "mlp(width=4)", "vit"), "optimizer": ("sgd", "adam", "muon"),
    "schedule": ("constant", "cosine"), "precision": ("fp32",), "normalize": ("half",),
    "watch": ("layer",), "recipe": ("tutorial",), "device": ("cpu", "auto"), "fleet": ("off", "2"),
    "store": ("runs", "empty", "new"), "out": ("out",), "seeds": ("2", "0,3", "5,"),
    "baseline": ("none", "norm"), "player": ("generator=agc", "discriminator=none"),
    "sampler": ("tpe", "random", "grid"), "pruner": ("none", "median"), "figure": ("scores",),
    "space": ("clip_factor=1e-4..1:log", "max_norm=0.1..10"), "lr_range": ("1e-3..1",),
    "side": ("gradient", "update"), "norms": ("1,2,3",), "only": ("fields",), "file": ("file.txt",),
}  # fmt: skip
"""Values that options may have; others take small numbers."""


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """The words of a command line, without the program's name."""
    path, each = draw(st.sampled_from(LINES))
    words = list(path)
    value = st.one_of(
        st.sampled_from(WORDS), st.sampled_from(PATHS), spellings.calls(), st.text(max_size=6)
    )
    wild = draw(st.integers(0, 2)) == 0  # most have one fault at most
    options = [p for p in each.params if p.name not in ("help",)]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)) if options else ():
        name = draw(st.sampled_from([*option.opts, *option.secondary_opts]))
        if isinstance(option, click.Argument) or option.param_type_name == "argument":
            words.append(draw(fitting(option, value, wild)))
        elif getattr(option, "is_flag", False):
            words.append(name)
        elif draw(st.booleans()) and name.startswith("--"):
            words.append(f"{name}={draw(fitting(option, value, wild))}")
        else:
            words += [name, draw(fitting(option, value, wild))]
    if draw(st.integers(0, 7)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(value))
    if draw(st.integers(0, 15)) == 0:
        words.append(draw(st.sampled_from(["--help", "-h", "--version", "--json", "--traceback"])))
    return [word.replace("\0", "") for word in words]


def fitting(option: Any, noise: st.SearchStrategy[str], wild: bool) -> st.SearchStrategy[str]:
    """A value for an option: of those that it may have, unless `wild`."""
    right = st.sampled_from(RIGHT.get(option.name, ("1", "2", "0.1", "0.5")))
    return noise if wild else st.one_of(right, right, right, right, right, noise)


class Begun(UsageError):
    """In place of what would take long."""


def _stop(*_: Any, **__: Any) -> Any:
    raise Begun("nothing is trained, measured or drawn here")


STOPPED = (
    *("gclip.training.train", "gclip.execution.run_all.train_missing", "gclip.testing.examine"),
    *("gclip.execution.compare.train_missing", "gclip.training.norm_survey.survey_norms"),
    *("gclip.training.examine_problem", "gclip.training.examine_model", "gclip.studies.answered"),
    *("gclip.figures.draw_all", "gclip.figures.draw", "gclip.doctor.Doctor"),
)


def _load_data(task: str, *more: Any, **settings: Any) -> Any:
    """What is embedded is loaded; nothing else is looked for."""
    return _REAL_LOAD(task, *more, **settings) if find_problem(task).name == "digits" else _stop()


_REAL_LOAD = tasks.load_data


@contextlib.contextmanager
def stopped() -> Iterator[None]:
    """Where something would be trained, measured or drawn, a refusal stands in."""
    with contextlib.ExitStack() as stack:
        for name in STOPPED:
            home, _, attribute = name.rpartition(".")
            module = importlib.import_module(home)
            getattr(module, attribute, None)  # lazy names come into being
            stack.enter_context(mock.patch.object(module, attribute, _stop, create=True))
        for name in ("gclip.training.tasks", "gclip.training", "gclip.execution.job_trainer"):
            module = importlib.import_module(name)
            stack.enter_context(mock.patch.object(module, "load_data", _load_data, create=True))
        for info in pkgutil.iter_modules(gclip.bench.__path__):
            module = importlib.import_module(f"gclip.bench.{info.name}")
            if isinstance(getattr(module, "rows", None), types.FunctionType):
                stack.enter_context(mock.patch.object(module, "rows", _stop))
        yield


def furnish(folder: Path) -> Path:
    """A folder to work in, deep enough that ``../`` stays within `folder`."""
    from gclip.results import Store

    work = folder / "deep" / "work"
    work.mkdir(parents=True)
    (work / "empty").mkdir()
    (work / "file.txt").write_text("no")
    (work / "train.py").write_text("x = 1\n")
    store = Store(work / "runs", create=True)
    for seed in (0, 1):
        config = RunConfig(strategy="norm", seed=seed, epochs=1)
        store.save(RunResult(config=config, accuracy=0.5, loss=1.0))
    return work


def check(words: list[str], work: Path) -> int:
    """Run the command line in the folder `work`; its exit code."""
    seen: list[BaseException] = []
    real = command.app_for

    def app_for(arguments: Sequence[str]) -> Any:
        app = real(arguments)

        def watched(**settings: Any) -> Any:
            try:
                return app(**settings)
            except BaseException as error:
                seen.append(error)
                raise

        return watched

    before = Path.cwd()
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    os.chdir(work)
    try:
        with (
            in_time(words),
            mock.patch.object(command, "app_for", app_for),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(words)
    finally:
        os.chdir(before)
    said, printed = (
        each.buffer.getvalue().decode("utf-8") for each in (err, out)
    )  # fmt: skip
    about = f"{words!r}: code {code}, {said[-600:]!r}, {seen!r}"
    assert code in (0, 1, 2), about
    assert "Traceback" not in said or "--traceback" in words, about
    assert "unexpected" not in said.partition("gclip: error: ")[2][:12], about
    if code:
        helped = "Usage" in printed or "Usage" in said
        assert helped or "gclip: error: " in said or not seen, about
    else:
        assert "gclip: error: " not in said, about
    for error in seen:
        allowed = UsageError, command._ParseError, typer.Exit, typer.Abort
        unusable = isinstance(error, OSError) and error.errno in command._UNUSABLE
        assert isinstance(error, allowed) or type(error).__name__ == "Exit" or unusable, about
        if isinstance(error, UsageError):
            check_sentence(str(error))
    return code
