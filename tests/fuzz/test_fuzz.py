"""Noise in place of spellings, configs, command lines and stored runs: refused in a sentence.

A few examples of each, the same ones every time; more than 20,000 where it is run as a drill.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from tests.fuzz import clipping, command_lines, configs, spellings, stores
from tests.fuzz.examples import AS_DRILL, bounded

pytestmark = [pytest.mark.drill] if AS_DRILL else []


@bounded(150, drill=10_000)
@given(spellings.texts())
def test_strategies(text: str) -> None:
    spellings.check_strategy(text)


@bounded(60, drill=2000)
@given(spellings.texts("model"))
def test_models(text: str) -> None:
    spellings.check_model(text)


@bounded(60, drill=2000)
@given(spellings.texts("task"))
def test_tasks(text: str) -> None:
    spellings.check_task(text)


@bounded(40, drill=2500)
@given(configs.fields())
def test_configs(values: dict[Any, Any]) -> None:
    configs.check_fields(values)


@bounded(60, drill=2000)
@given(configs.json_texts())
def test_configs_as_json(text: str) -> None:
    configs.check_json(text)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store, in which nothing is trained."""
    with command_lines.stopped():
        yield command_lines.furnish(tmp_path_factory.mktemp("work"))


@bounded(30, drill=2000)
@given(command_lines.lines())
def test_command_lines(work: Path, words: list[str]) -> None:
    command_lines.check(words, work)


@bounded(20, drill=300)
@given(stores.damages())
def test_stores(damage: stores.Damage) -> None:
    stores.check(damage)


@bounded(80, drill=5000)
@given(clipping.cases())
def test_clipping(case: clipping.Case) -> None:
    clipping.check(case)
