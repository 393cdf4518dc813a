"""The search space comes from the class; the protocol from the study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import gclip
from gclip import studies
from gclip.errors import UsageError
from gclip.results import Store
from gclip.studies import thresholds
from gclip.training import RunConfig


@gclip.register("many_fields")
@dataclass(frozen=True, kw_only=True)
class ManyFields(gclip.Strategy):
    """One field of each kind."""

    limit_at: float = gclip.tunable(0.1, low=1e-3, high=10.0, log=True)
    window: int = gclip.tunable(10, low=1, high=100)
    way: str = gclip.tunable("a", choices=("a", "b"))
    eps: float = gclip.setting(1e-3, above=0)

    def limit(self, seen: gclip.Seen, memory: gclip.Memory) -> gclip.Limit:
        return seen.norm * self.limit_at


def strategy(text: str) -> gclip.Strategy:
    parsed = gclip.parse(text)
    assert isinstance(parsed, gclip.Strategy)
    return parsed


def test_studies_are_found_by_their_files() -> None:
    assert "thresholds" in studies.names()
    assert studies.question("thresholds").startswith("How large should the limit be?")
    with pytest.raises(UsageError, match="did you mean 'thresholds'"):
        studies.get("threshold")


def test_the_space_is_read_from_the_class() -> None:
    found = thresholds.space(strategy("many_fields"), RunConfig(), (0.01, 1.0))
    assert found == {
        "limit_at": FloatDistribution(1e-3, 10.0, log=True),
        "window": IntDistribution(1, 100),
        "way": CategoricalDistribution(("a", "b")),
        "lr": FloatDistribution(0.01, 1.0, log=True),
    }
    assert "lr" not in thresholds.space(strategy("many_fields"), RunConfig(), None)


@pytest.mark.parametrize("name", [name for name in gclip.names() if name != "many_fields"])
def test_every_strategy_can_be_tuned(name: str) -> None:
    assert "lr" in thresholds.space(strategy(name), RunConfig(), (0.01, 1.0))


@pytest.mark.parametrize("low_high", [(1.0, 0.1), (0.0, 1.0), (0.1, float("inf"))])
def test_senseless_learning_rates_are_refused(low_high: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="0 < low < high"):
        thresholds.space(strategy("norm"), RunConfig(), low_high)


def test_settings_in_the_spelling_are_held(tmp_path: Path) -> None:
    base = RunConfig(fraction=0.1, epochs=1, batch_size=64)
    found = thresholds.run(
        "many_fields(eps=0.5)",
        2,
        base=base,
        store=Store(tmp_path, create=True),
        workers=1,
        device="cpu",
        fixed_lr=True,
    )
    assert found.best is not None
    assert found.name == "thresholds-many_fields-eps-0.5-digits"
    assert "eps=0.5" in found.best.strategy
    assert found.best.lr == base.lr
    assert (found.best.split, found.best.seed) == ("validation", thresholds.TUNING_SEEDS)
    assert (found.trials, found.failed) == (2, 0)
    # Four digits, so that people can copy them.
    [value] = list(found.best.strategy.split("limit_at=")[1:])
    assert len(value.split(",")[0].strip(")0.").replace(".", "")) <= 4


def test_default_learning_rates_surround_the_tasks() -> None:
    low, high = thresholds.lr_range_around(0.2)
    assert low < 0.2 < high
    assert (low, high) == (0.0067, 1.0)
