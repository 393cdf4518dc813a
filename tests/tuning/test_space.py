"""Search spaces: from the class, changed by text, and wrong ones in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import gclip
from gclip.errors import UsageError
from gclip.training import RunConfig
from gclip.tuning.dimension import Dimension
from gclip.tuning.space import (
    check_overrides,
    dimension,
    lr_range_around,
    parse_space,
    space_of,
)

LRS = (0.01, 1.0)


@dataclass(frozen=True, kw_only=True)
class ManyFields(gclip.Strategy):
    """One field of each kind."""

    limit_at: float = gclip.tunable(0.1, low=1e-3, high=10.0, log=True)
    window: int = gclip.tunable(10, low=1, high=100)
    way: str = gclip.tunable("a", choices=("a", "b"))
    eps: float = gclip.setting(1e-3, above=0)
    past: int | None = gclip.setting(None, at_least=1)

    def limit(self, seen: gclip.Seen, memory: gclip.Memory) -> gclip.Limit:
        return seen.norm * self.limit_at


@pytest.fixture(autouse=True)
def many_fields(registered: None) -> None:
    """Registered for these tests alone: others ask for all names when they are collected."""
    gclip.register("many_fields")(ManyFields)


OWN = {
    "limit_at": FloatDistribution(1e-3, 10.0, log=True),
    "window": IntDistribution(1, 100),
    "way": CategoricalDistribution(("a", "b")),
    "lr": FloatDistribution(0.01, 1.0, log=True),
}


def test_the_space_is_read_from_the_class() -> None:
    assert space_of("many_fields", lr_range=LRS).distributions == OWN
    assert "lr" not in space_of("many_fields").distributions


@pytest.mark.parametrize("name", gclip.names())
def test_every_strategy_can_be_tuned(name: str) -> None:
    assert "lr" in space_of(name, lr_range=LRS).dimensions


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("limit_at=1e-4..1", FloatDistribution(1e-4, 1.0, log=True)),
        ("limit_at=1e-4..1:log", FloatDistribution(1e-4, 1.0, log=True)),
        ("limit_at=.5..1.5:linear", FloatDistribution(0.5, 1.5)),
        ("limit_at=0..2:linear", FloatDistribution(0.0, 2.0)),
        ("limit_at=0.1|1|10", CategoricalDistribution((0.1, 1.0, 10.0))),
        ("window=10..1000:log", IntDistribution(10, 1000, log=True)),
        ("window=10|100", CategoricalDistribution((10, 100))),
        ("past=5..50", IntDistribution(5, 50)),
        ("past=none|50", CategoricalDistribution((None, 50))),
        ("eps=1e-4..1e-2:log", FloatDistribution(1e-4, 1e-2, log=True)),
        ("way=b|a", CategoricalDistribution(("b", "a"))),
        ("scope=unit|tensor", CategoricalDistribution(("unit", "tensor"))),
        ("lr=1e-3..1", FloatDistribution(1e-3, 1.0, log=True)),
        ("lr=0.1..0.5:linear", FloatDistribution(0.1, 0.5)),
    ],
)
def test_a_dimension_is_changed_or_added_by_text(text: str, wanted: object) -> None:
    name = text.partition("=")[0]
    found = space_of("many_fields", lr_range=LRS, overrides=parse_space([text]))
    assert found.distributions == {**OWN, name: wanted}
    # What is written down reads back as the same.
    each = found.dimensions[name]
    assert dimension(found.strategy, name, str(each)) == each


def test_a_single_value_is_held() -> None:
    found = space_of(
        "many_fields(eps=0.5)",
        lr_range=LRS,
        overrides={"window": "7", "limit_at": "linear(1, 0.1)", "lr": "0.25", "scope": "unit"},
    )
    assert list(found.dimensions) == ["way"]
    trial = optuna.trial.FixedTrial({"way": "b"})
    config = found.config(trial, RunConfig(epochs=2))  # type: ignore[arg-type]
    held = "many_fields(limit_at=linear(1, 0.1), window=7, way=b, eps=0.5, scope=unit)"
    assert (config.strategy, config.lr, config.epochs) == (held, 0.25, 2)


def test_values_have_four_digits_and_stay_within() -> None:
    trial = optuna.trial.FixedTrial(
        {"limit_at": 0.123456, "window": 3, "way": "a", "lr": 0.9999999}
    )
    config = space_of("many_fields", lr_range=(0.01, 0.99999995)).config(
        trial,  # type: ignore[arg-type]
        RunConfig(),
    )
    assert config.strategy == "many_fields(limit_at=0.1235, window=3)"
    assert config.lr == 0.99999995


def test_an_override_can_be_for_one_of_several_strategies() -> None:
    overrides = {"max_norm": "1..2", "soft.max_norm": "3..4", "agc.clip_factor": "0.5"}
    check_overrides(["norm", "soft", "agc"], overrides)
    assert space_of("norm", overrides=overrides).dimensions["max_norm"].high == 2
    assert space_of("soft", overrides=overrides).dimensions["max_norm"].high == 4


@pytest.mark.parametrize(
    ("strategies", "overrides", "said"),
    [
        (["norm", "agc"], {"max_nrom": "1"}, "norm and agc have no such field; did you mean 'max_"),
        (["norm"], {"clip_factor": "1"}, "norm has no such field"),
        (["norm"], {"soft.max_norm": "1"}, "'soft', which this study does not tune"),
        (["norm", "agc"], {"agc.max_norm": "1"}, "agc has no such field"),
    ],
)
def test_an_override_that_fits_no_strategy_is_an_error(
    strategies: list[str], overrides: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_overrides(strategies, overrides)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit_ta=1..2", "did you mean 'limit_at'?"),
        ("limit_at=2..1", "low < high must hold, but got low=2, high=1"),
        ("limit_at=1..1", "low < high must hold"),
        ("limit_at=1..inf", "low < high must hold"),
        ("limit_at=0..1", "a log scale needs low > 0, but got low=0; write :linear"),
        ("limit_at=-1..1:linear", "limit_at must be at least 0, but got -1.0"),
        ("limit_at=1..2:lgo", "LOW..HIGH:log"),
        ("limit_at=a..b", "'a' is no number"),
        ("limit_at=1, window=2", "is no number, word or schedule"),
        ("limit_at=1|", "'' is no number, word or schedule"),
        ("limit_at=1|1.0", "names a choice twice"),
        ("limit_at=big", "limit_at must be a number, but got 'big'"),
        ("limit_at=linear(1,0.1)|2", "can be held, but not searched"),
        ("window=1.5..10", "window"),
        ("past=0..10", "past must be at least 1"),
        ("past=1..9.5", "whole number"),
        ("eps=0", "eps must be above 0"),
        ("way=c|a", "way must be one of a, b, but got 'c'"),
        ("scope=element|unit", "makes no sense here"),
        ("lr=0..1", "a log scale needs low > 0"),
        ("lr=0", "a learning rate is a number above 0"),
    ],
)
def test_a_wrong_space_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        space_of("many_fields", lr_range=LRS, overrides=parse_space([text]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("items", [["max_norm"], ["=1"], ["max_norm="], ["p=1", "p=2"]])
def test_text_that_is_no_space(items: list[str]) -> None:
    with pytest.raises(UsageError, match=r"FIELD=RANGE|twice"):
        parse_space(items)


def test_settings_in_the_spelling_are_not_searched() -> None:
    with pytest.raises(UsageError, match=r"leave it out .* --space max_norm=3"):
        space_of("norm(max_norm=3)")
    with pytest.raises(UsageError, match="held by the space"):
        space_of("norm(max_norm=3)", overrides={"max_norm": "1"})
    with pytest.raises(UsageError, match="nothing to tune"):
        space_of("none")
    with pytest.raises(UsageError, match="nothing to tune"):
        space_of("norm", overrides={"max_norm": "1"})
    with pytest.raises(UsageError, match="not a chain"):
        space_of("chain(norm, value)", lr_range=LRS)


@pytest.mark.parametrize("low_high", [(1.0, 0.1), (0.0, 1.0), (0.1, float("inf"))])
def test_senseless_learning_rates_are_refused(low_high: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="0 < low < high"):
        space_of("norm", lr_range=low_high)


def test_default_learning_rates_surround_the_tasks() -> None:
    assert lr_range_around(0.2) == (0.0067, 1.0)


def test_a_grid_goes_from_end_to_end() -> None:
    assert Dimension(low=0.01, high=1.0, log=True).grid(3) == (0.01, 0.1, 1.0)
    assert Dimension(low=0.0, high=1.0).grid(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Dimension(low=1.0, high=3.0, whole=True).grid(9) == (1, 2, 3)
    assert Dimension(choices=("a", "b", "c")).grid(2) == ("a", "b", "c")
