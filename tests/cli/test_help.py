"""The help of all commands: what it promises of every option, and of options of one name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from gclip import studies
from gclip.cli.study_options import FLAGS
from gclip.training import RunConfig, task_defaults
from tests.cli.commands import commands

Command = Any  # of conftest.py

# Options that are about the same thing are called the same, and mean the same.
ONE_MEANING = {
    "--batch-size": r"(Images|Examples) a batch(\.|; again for more\.)$",
    "--data": "Folder of the (data|images)",
    "--format": "Of the (table|figures): ",
    "--json": "Print one JSON object instead.",
    "--model": "lenet|Which net",
    "--no-figures": "Draw no figures.",
    "--optimizer": "sgd, adam",
    "--out": "Folder for figures.",
    "--plugin": "Python file or module that registers strategies",
    "--record": "Folder of the record",
    "--runs": "Runs in a (fleet|store)",
    "--seed": "Of ",
    "--seeds": ".*10, or 0,1,5",
    "--seconds": "How long to measure each row",
    "--store": "Folder that keeps the runs",
    "--task": "What is learned|Runs of this task",
    "--trials": "In all, for each strategy|Of each of the three strategies",
    "--strategy": "A name or a spelling|The name of one|What the fleet's runs clip with",
}


def options() -> Iterator[tuple[str, Any]]:
    for path, command in commands():
        for each in command.params:
            if each.param_type_name == "option":
                yield path, each


def help_of(gclip: Command, path: str) -> str:
    """The help in one line, without frames."""
    answer = gclip(*path.split(), "--help")
    assert answer.code == 0
    return " ".join(answer.out.replace("│", " ").split())


def test_every_option_says_what_it_is_and_what_it_is_by_default() -> None:
    for path, each in options():
        where = f"gclip {path} {each.opts[0]}"
        assert each.help, where
        flag = each.is_bool_flag and not each.secondary_opts
        assert not re.search(r"\(default\)|by default", each.help), f"{where}: said by [default: …]"
        if flag or each.required:
            continue
        shown = each.show_default
        assert (isinstance(shown, str) and shown) or (shown and each.default is not None), where


def test_no_help_asks_for_the_value_of_a_flag(gclip: Command) -> None:
    for path, command in commands():
        text = help_of(gclip, path)
        assert "bool" not in text, path
        flags = [each for each in command.params if getattr(each, "is_bool_flag", False)]
        assert all(each.opts[0] in text for each in flags)


def test_options_of_one_name_mean_one_thing() -> None:
    said: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[str]] = defaultdict(set)
    for _, each in options():
        name = each.opts[0]
        said[name].add(each.help)
        kinds[name].add(str(each.metavar))
    for name, texts in said.items():
        assert len(kinds[name]) == 1, (name, kinds[name])
        if len(texts) > 1:
            assert name in ONE_MEANING, (name, texts)
            for text in texts:
                assert re.match(ONE_MEANING[name], text), (name, text)


def test_options_of_study_run_say_which_studies_use_them() -> None:
    found = {each.opts[0]: each.help for path, each in options() if path == "study run"}
    for field, name in FLAGS.items():
        users = [study for study in studies.names() if field in studies.uses(study)]
        said = re.search(r" For ([a-z_, ]+)\.$", found[name])
        assert said is not None, name
        assert sorted(said[1].split(", ")) == users, name


def test_the_defaults_of_a_setting_are_those_of_its_task() -> None:
    shown = {each.opts[0]: each.show_default for path, each in options() if path == "train"}
    usual, cifar10 = RunConfig(), task_defaults("cifar10")
    for name in ("fraction", "model", "optimizer", "lr", "weight_decay", "schedule", "batch_size",
                 "accumulate", "epochs", "normalize", "precision", "label_noise",
                 "gradient_noise", "spikes"):  # fmt: skip
        said = shown["--" + name.replace("_", "-")]
        ours, theirs = getattr(usual, name), getattr(cifar10, name)
        texts = [f"{each:g}" if isinstance(each, float) else str(each) for each in (ours, theirs)]
        assert said.startswith(texts[0]), name
        assert (f"{texts[1]} for cifar10" in said) == (ours != theirs), name
    assert shown["--augment"] == "no; yes for cifar10"
    assert (usual.augment, cifar10.augment) == (False, True)


@pytest.mark.parametrize(
    ("option", "study", "constant"),
    [("--trials", "thresholds", "TRIALS"), ("--trials", "budget", "TRIALS"),
     ("--seeds", "lr_ceiling", "SEEDS"), ("--seeds", "sensitivity", "SEEDS")],
)  # fmt: skip
def test_the_defaults_of_studies_are_those_shown(option: str, study: str, constant: str) -> None:
    [each] = [each for path, each in options() if path == "study run" and each.opts[0] == option]
    value = getattr(studies.get(study), constant)
    assert re.search(rf"\b{value if isinstance(value, int) else len(value)}\b", each.show_default)
