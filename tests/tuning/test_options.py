"""The options of a search: each declared once, and found wherever one is given or kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gclip import studies
from gclip.cli import study
from gclip.errors import UsageError
from gclip.tuning.options import SPACE, RequestOptions, SearchOptions, options_of
from gclip.tuning.study import Request
from gclip.tuning.study_file import read_study_file

VALUES = {
    "trials": "7",
    "seeds": "[3, 5]",
    "lr_range": "[0.01, 0.5]",
    "fixed_lr": "true",
    "sampler": '"random"',
    "pruner": '"median"',
    "seeds_per_trial": "3",
    "objectives": '["accuracy", "cost"]',
    "points": "4",
    "seed": "9",
}


def test_every_option_is_a_field_of_a_request_and_an_option_of_the_command() -> None:
    options = options_of()
    assert set(options) == {field.name for field in dataclasses.fields(RequestOptions)}
    assert set(options) <= {field.name for field in dataclasses.fields(Request)}
    command: Any = typer.main.get_command(study.app_for(()))
    flags = [flag for each in command.commands["run"].params for flag in each.opts]
    for option in options.values():
        assert flags.count(option.flag) == 1, option.flag


def test_a_study_file_gives_every_option_and_refuses_what_it_is_not(tmp_path: Path) -> None:
    in_file = {name for name, option in options_of().items() if option.kind is not SPACE}
    assert in_file == set(VALUES)
    path = tmp_path / "study.toml"
    path.write_text("\n".join(f"{name} = {value}" for name, value in VALUES.items()))
    assert read_study_file(path).settings == {
        "trials": 7,
        "seeds": (3, 5),
        "lr_range": (0.01, 0.5),
        "fixed_lr": True,
        "sampler": "random",
        "pruner": "median",
        "seeds_per_trial": 3,
        "objectives": ("accuracy", "cost"),
        "points": 4,
        "seed": 9,
    }
    for name in VALUES:
        path.write_text(f"{name} = 2020-01-01")
        with pytest.raises(
            UsageError, match=f"{name} must be {options_of()[name].kind.description[:9]}"
        ):
            read_study_file(path)


def test_what_a_study_keeps_reads_back_and_defaults_are_left_out() -> None:
    assert SearchOptions().search_settings == {"sampler": "tpe", "seed": 0}
    chosen = SearchOptions(
        sampler="grid",
        pruner="median",
        seeds_per_trial=3,
        objectives=("accuracy", "cost"),
        points=4,
    )
    kept = chosen.search_settings
    assert kept == {
        "sampler": "grid",
        "pruner": "median",
        "seeds per trial": 3,
        "objectives": ["accuracy", "cost"],
        "points": 4,
        "seed": 0,
    }
    assert SearchOptions(**SearchOptions.read_settings({"lr": 1.0, **kept})) == chosen
    with pytest.raises(KeyError, match="seed"):
        SearchOptions.read_settings({"sampler": "tpe"})


def test_an_option_names_the_studies_that_use_it() -> None:
    for name, option in options_of().items():
        users = [each for each in studies.names() if name in studies.uses(each)]
        assert sorted(filter(None, option.studies.split(", "))) == users, name
