"""The command as a whole: help, options, exit codes, and what goes to which stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gclip import execution
from gclip.results import Store
from gclip.training import RunConfig, RunResult, models, optimizers, recipes
from gclip.training.checks import NORMALIZATIONS, PRECISIONS
from gclip.training.problem_registry import PROBLEMS
from tests.cli.commands import commands

Command = Any  # of conftest.py

SETTING = {
    *("--recipe", "--task", "--data", "--fraction", "--model", "--optimizer", "--lr"),
    *("--momentum", "--weight-decay", "--schedule", "--batch-size", "--accumulate", "--epochs"),
    *("--augment", "--no-augment", "--normalize", "--precision"),
    *("--label-noise", "--gradient-noise", "--spikes", "--dropout"),
    *("--size", "--grayscale", "--colour", "--watch"),
}
PLACE = {"--store", "--device", "--threads", "--checkpoint-every"}
# The names that people's scripts rely on: taking one away is a change of the interface.
OPTIONS: dict[str, set[str]] = {
    "": {"--version", "--traceback"},
    "train": {
        *("--strategy", "-s", "--player", "--seed", "--checkpoint", "--plugin", "--json"),
        *("--tensorboard", *SETTING, *PLACE),
    },
    "compare": {
        *(
            "--strategy",
            "-s",
            "--player",
            "--seeds",
            "--baseline",
            "--workers",
            "--plugin",
            "--out",
        ),
        *("--no-figures", "--format", "--json", "--fleet", *SETTING, *PLACE),
    },
    "figures": {
        *("--store", "--out", "--figure", "--strategy", "-s", "--format", "--style", "--width"),
        *("--dpi", "--no-title", "--plugin", "--list", "--json", "--record"),
    },
    "paper": set(),
    "paper train": {
        *("--plan", "--section", "--store", "--data", "--device", "--threads", "--workers"),
        *("--fleet", "--checkpoint-every", "--json"),
    },
    "paper record": {"--store", "--record", "--plan", "--section", "--json"},
    "paper draw": {"--record", "--plan", "--out", "--root", "--check", "--json"},
    "report": {"--store", "--html", "--title", "--figure", "--json"},
    "list": {"--family", "--side", "--problems", "--models", "--plugin", "--json"},
    "show": {"--norms", "--plugin", "--json"},
    "check": {"--only", "--seed", "--data", "--json"},
    "env": {"--json"},
    "doctor": {"--steps", "--json"},
    "survey": {
        *("--strategy", "-s", "--clip-rate", "--steps", "--seeds", "--store", "--out"),
        *(
            "--device",
            "--threads",
            "--no-figures",
            "--plugin",
            "--watch-player",
            "--json",
            *SETTING,
        ),
    },
    "study": set(),
    "study run": {
        *("--strategy", "-s", "--trials", "--fixed-lr", "--lr-range", "--sampler", "--seed"),
        *("--name", "--workers", "--plugin", "--json", *SETTING, *PLACE),
        *("--seeds", "--space", "--pruner", "--seeds-per-trial", "--objective", "--points"),
        *("--file", "--out", "--format", "--fleet"),
    },
    "study list": {"--store", "--json"},
    "study create": {
        *("--storage", "--store", "--heartbeat", "--json", "--strategy", "-s", "--trials"),
        *("--fixed-lr", "--lr-range", "--sampler", "--seed", "--name", "--plugin", "--space"),
        *("--pruner", "--seeds-per-trial", "--objective", "--points", "--file", *SETTING),
    },
    "study work": {
        *("--storage", "--workers", "--data", "--plugin", "--fleet", "--json", *PLACE),
    },
    "study report": {
        *("--store", "--device", "--threads", "--seeds", "--data", "--workers", "--plugin"),
        *("--out", "--format", "--json", "--checkpoint-every"),
    },
    "study show": {"--store", "--best", "--out", "--json"},
    "study export": {"--store", "--csv"},
    "store": set(),
    "store list": {
        *("--store", "--task", "--model", "--strategy", "-s", "--seed", "--status", "--json"),
    },
    "store check": {"--store", "--json"},
    "store repair": {"--store", "--dry-run", "--json"},
    "store gc": {"--store", "--days", "--dry-run", "--json"},
    "bench": set(),
    "bench clip": {"--json"},
    "bench strategies": {"--strategy", "-s", "--seconds", "--write", "--plugin", "--json"},
    "bench train": {"--model", "--batch-size", "--optimizer", "--seconds", "--data", "--json"},
    "bench fleet": {
        *("--model", "--batch-size", "--runs", "--optimizer", "--strategy", "-s", "--seconds"),
        *("--tutorial", "--no-tutorial", "--json"),
    },
    "bench data": {"--data", "--json"},
    "bench loop": {"--model", "--batch-size", "--seconds", "--json"},
    "bench store": {"--runs", "--figures", "--no-figures", "--json"},
    "bench study": {"--trials", "--batch-size", "--epochs", "--data", "--json"},
    "bench growth": {"--strategy", "-s", "--seconds", "--json"},
    "bench all": {"--seconds", "--data", "--json"},
}


def options(command: Any) -> set[str]:
    return {
        name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name != "--help"
    }


def test_option_names_are_frozen() -> None:
    assert {path: options(command) for path, command in commands()} == OPTIONS


@pytest.mark.parametrize(
    "path", [path for path in OPTIONS if path not in ("study", "store", "bench", "paper")]
)
def test_every_help_has_an_example(gclip: Command, path: str) -> None:
    answer = gclip(*path.split(), "--help")
    assert answer.code == 0
    assert f"gclip {path}".strip() + " " in answer.out.partition("Usage")[2].partition("\n")[2]


def test_help_lists_the_choices_and_defaults_there_are(gclip: Command) -> None:
    text = " ".join(gclip("train", "--help").out.replace("│", " ").split())
    shipped = [n for n in PROBLEMS.names() if PROBLEMS.get(n).__module__.startswith("gclip.")]
    choices = (models.names(), optimizers.names(), optimizers.schedules(), shipped, PRECISIONS)
    for name in (*(name for each in choices for name in each), *NORMALIZATIONS, *recipes):
        assert name in text
    default = RunConfig()
    for name in ("task", "model", "optimizer", "schedule", "normalize", "precision"):
        described = text.partition("What is trained")[2].partition(f"--{name} ")[2]
        before = described.partition("default")[0].rpartition("--")[2]
        assert str(getattr(default, name)) in before, name


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    script = """
import sys
from gclip.cli import main
codes = [main(["--help"]), main(["compare", "--help"]), main(["--version"])]
heavy = {"torch", "numpy", "pandas", "optuna", "matplotlib", "sklearn", "scipy"} & set(sys.modules)
sys.exit(f"{codes} {heavy}" if any(codes) or heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    import gclip

    assert f"gclip {gclip.__version__}" in done.stdout


def test_python_m_gclip_and_a_reader_that_has_gone(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gclip", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


BAD = [
    (["train", "-s", "nrom"], "unknown strategy 'nrom'; did you mean 'norm'?"),
    (["train", "-s", "norm(max_nrom=1)"], "did you mean 'max_norm'?"),
    (["train", "-s", "norm(max_norm=-1)"], "max_norm"),
    (["train", "-s", "norm(scope=units)"], "scope"),
    (["train", "--lr", "-1"], "lr must be > 0"),
    (["train", "--lr", "fast"], "--lr"),
    (["train", "--sed", "1"], "--seed"),
    (["train", "--seed", "-1"], "seed"),
    (["train", "--task", "digit"], "did you mean 'digits'?"),
    (["train", "--recipe", "tutoral"], "did you mean 'tutorial'?"),
    (["train", "--task", "cifar10", "--data", "nowhere"], "nowhere does not exist"),
    (["train", "--device", "tpu"], "cpu"),
    (["train", "--device", "mps:7"], "mps:7"),
    (["train", "--plugin", "mine.py"], "mine.py"),
    (["compare", "--plugin", "no.such.module"], "no.such.module"),
    (["compare", "-s", "agcc"], "did you mean 'agc'?"),
    (["compare", "--seeds", "many"], "10 or a list such as 0,1,5"),
    (["compare", "--seeds", "0"], "--seeds"),
    (["compare", "--seeds", "1,1"], "seed 1 is there twice"),
    (["compare", "-s", "norm", "--baseline", "agc"], "unknown baseline 'agc'"),
    (["compare", "--workers", "0"], "workers must be a whole number from 1 to 1,024, but got 0"),
    (["compare", "--fleet", "many"], "fleet must be auto, off or a whole number ≥ 1"),
    (["compare", "--fleet", "0"], "fleet must be auto, off or a whole number ≥ 1, but got '0'"),
    (["study", "run", "thresholds", "-s", "agc", "--fleet", "-3"], "but got '-3'"),
    (["compare", "--device", "cuda:99"], "cuda:99"),
    (["figures"], "the store 'runs' does not exist"),
    (["figures", "--figure", "scors"], "did you mean 'scores'?"),
    (["study", "run", "treshold", "-s", "agc"], "did you mean 'thresholds'?"),
    (["study", "run", "thresholds"], "--strategy"),
    (["study", "run", "thresholds", "-s", "agc", "--lr-range", "1"], "LOW,HIGH"),
    (["study", "run", "thresholds", "-s", "agc", "--sampler", "tpo"], "did you mean 'tpe'?"),
    (["study", "run", "thresholds", "-s", "none", "--fixed-lr"], "nothing to tune"),
    (
        ["study", "run", "thresholds", "-s", "agc", "--trials", "0"],
        "trials must be a whole number from 1",
    ),
    (["study", "run", "thresholds", "-s", "agc(clip_factor=0.1)"], "leave it out"),
    (["study", "run", "thresholds", "-s", "chain(norm, value)"], "not a chain"),
    (["copmare"], "compare"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=lambda value: str(value))
def test_wrong_input_is_one_sentence_and_exit_code_2(
    gclip: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    answer = gclip(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("gclip: error: ")
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert not list(tmp_path.rglob("config.json")), "something was trained"
    assert not list(tmp_path.rglob("*.db")), "a study was begun"


def test_a_store_that_cannot_be_written_is_known_before_training(
    gclip: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for command in (["train"], ["compare"], ["study", "run", "thresholds", "-s", "agc"]):
        answer = gclip(*command, "--store", "file/runs")
        assert answer.code == 2
        assert "file/runs" in answer.err
        assert answer.err.count("\n") == 1


def test_an_unexpected_error_is_short_and_says_how_to_see_more(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the sky\nfell")

    monkeypatch.setattr(execution, "compare_configs", broken)
    answer = gclip("compare", "-s", "norm")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "gclip: error: unexpected RuntimeError: the sky fell",
        "For the whole story: gclip --traceback compare -s norm",
    ]
    full = gclip("--traceback", "compare", "-s", "norm")
    assert full.code == 1
    assert "Traceback" in full.err


def test_ctrl_c_says_what_is_kept(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "compare_configs", interrupted)
    answer = gclip("compare", "-s", "norm", "--seeds", "5")
    assert answer.code == 130
    assert answer.err == (
        "gclip: interrupted: 0 of 5 runs are finished and kept in runs; "
        "the same command makes the other 5\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("figures", "--store"),
        ("study", "list", "--store"),
        ("study", "show", "mine", "--store"),
        ("compare", "-s", "none", "-s", "norm", "--store"),
        ("train", "--epochs", "1", "--fraction", "0.1", "--checkpoint"),
        ("train", "--task", "images", "--data"),
        ("check",),
        ("doctor",),
        ("list", "--plugin"),
    ],
)
def test_a_path_that_is_too_long_is_told(gclip: Command, words: tuple[str, ...]) -> None:
    answer = gclip(*words, "9" * 300 + ".py")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("gclip: error: ")
    assert "unexpected" not in answer.err


def test_what_a_terminal_would_obey_is_printed_as_escapes(gclip: Command, tmp_path: Path) -> None:
    """In refusals, warnings and answers; what a stored run says among them."""
    red = "\x1b[31mred\u202e"
    answer = gclip("compare", "-s", red)
    assert answer.code == 2
    config = RunConfig(strategy="norm", epochs=1, fraction=0.1)
    result = RunResult(config=config, status="finished", accuracy=0.5, message=f"hello {red}")
    Store(tmp_path / "runs", create=True).save(result)
    answer = gclip("train", "-s", "norm", "--epochs", "1", "--fraction", "0.1")
    assert "hello \\x1b[31mred\\u202e" in answer.out
    for text in (answer.out, answer.err):
        assert "\x1b" not in text
        assert "\u202e" not in text
