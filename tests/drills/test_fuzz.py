"""The fuzz tests of `tests/fuzz`, with many examples: more than 20,000."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from tests.fuzz import configs, spellings
from tests.fuzz.examples import bounded


@bounded(6000)
@given(spellings.texts())
def test_strategies(text: str) -> None:
    spellings.check_strategy(text)


@bounded(2000)
@given(spellings.texts("model"))
def test_models(text: str) -> None:
    spellings.check_model(text)


@bounded(2000)
@given(spellings.texts("task"))
def test_tasks(text: str) -> None:
    spellings.check_task(text)


@bounded(4000)
@given(configs.fields())
def test_configs(values: dict[Any, Any]) -> None:
    configs.check_fields(values)


@bounded(2000)
@given(configs.json_texts())
def test_configs_as_json(text: str) -> None:
    configs.check_json(text)
