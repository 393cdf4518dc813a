"""Runs are put together where they may be compared, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gclip.results import Store, experiments, load, newest

Make = Callable[..., Any]


def test_strategy_code_and_seed_do_not_part_an_experiment(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    for strategy in ("none", "norm"):
        for seed in range(2):
            store.save(make(strategy, seed, config={"code": strategy * 2}))
    found = experiments(load(store))
    assert list(found) == [""]
    assert len(found[""]) == 4


def test_names_have_what_it_takes_to_tell_apart_and_no_more(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    store.save(make("norm", 0))
    store.save(make("norm", 0, config={"lr": 0.4}))
    assert list(experiments(load(store))) == ["lr=0.2", "lr=0.4"]
    store.save(make("norm", 0, config={"task": "cifar10", "data": "abc", "epochs": 3}))
    store.save(make("norm", 1, config={"task": "cifar10", "data": "abc", "epochs": 3}))
    found = experiments(load(store))
    assert {name: len(rows) for name, rows in found.items()} == {
        "task=cifar10 lr=0.2": 2,
        "task=digits lr=0.2": 1,
        "task=digits lr=0.4": 1,
    }
    assert experiments(load(store).iloc[:0]) == {}


def test_the_newest_code_counts(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    for code, date in (("new", "2001-02-02"), ("old", "2001-01-01")):
        for seed in range(2):
            store.save(make("mine", seed, config={"code": code}, environment={"date": date}))
    store.save(make("none", 0))
    runs = newest(load(store))
    assert sorted(runs["code"]) == ["", "new", "new"]
