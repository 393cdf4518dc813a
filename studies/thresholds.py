"""How large should the limit be? Tunes a strategy's tunable fields, the learning rate with them.

The search space is read from the strategy's class, so a new strategy can be tuned the moment it is
registered. Trials are scored on validation images with a seed that no comparison uses by default:
test images and reporting seeds stay unseen.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gclip
from gclip.errors import UsageError, choose
from gclip.running.coordinator import Coordinator, counted, open_study
from gclip.running.events import Listener, ignore
from gclip.running.machine import workers_for
from gclip.running.many import open_pool

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from gclip import FieldInfo, Strategy
    from gclip.results import Store
    from gclip.training import Dataset, RunConfig

TUNING_SEEDS = 1000
"""Trials train with seeds from here on, comparisons with 0, 1, 2 …"""

SAMPLERS = ("tpe", "random")
LR = "lr"
_LR_BELOW, _LR_ABOVE = 30.0, 5.0
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study found.

    `best` is the config of the best trial and `score` its validation accuracy, both None where
    no trial was completed. `trials` counts all that ended, `diverged` and `failed` among them.
    """

    name: str
    trials: int
    diverged: int
    failed: int
    best: RunConfig | None
    score: float | None
    number: int | None


def space(
    strategy: Strategy, base: RunConfig, lr_range: tuple[float, float] | None
) -> dict[str, BaseDistribution]:
    """The search space: every tunable field of `strategy`, and the learning rate in `lr_range`.

    Raises:
        UsageError: there is nothing to tune, or the spelling gives a value to a field that is
            to be tuned.
    """
    from optuna.distributions import FloatDistribution

    plain = gclip.create(strategy.name)
    found: dict[str, BaseDistribution] = {}
    for field in gclip.fields_of(type(strategy)):
        distribution = _distribution(field)
        if distribution is None:
            continue
        if getattr(strategy, field.name) != getattr(plain, field.name):
            raise UsageError(
                f"{field.name} is what this study searches; leave it out of --strategy {strategy}"
            )
        found[field.name] = distribution
    if lr_range is not None:
        low, high = lr_range
        if not 0 < low < high < math.inf:
            raise UsageError(f"the learning rates must be 0 < low < high, but got {low} and {high}")
        found[LR] = FloatDistribution(low, high, log=True)
    if not found:
        raise UsageError(
            f"{strategy} has no tunable field: with a fixed learning rate there is nothing to tune"
        )
    return found


def lr_range_around(lr: float) -> tuple[float, float]:
    """The learning rates searched by default: from a 30th of `lr` to five times it."""
    return _rounded(lr / _LR_BELOW, 2), _rounded(lr * _LR_ABOVE, 2)


def run(
    strategy: str,
    trials: int = 20,
    *,
    base: RunConfig,
    store: Store,
    name: str | None = None,
    lr_range: tuple[float, float] | None = None,
    fixed_lr: bool = False,
    sampler: str = "tpe",
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    dataset: Dataset | None = None,
    plugins: Iterable[str | Path] = (),
    threads: int = 1,
    on_event: Listener = ignore,
) -> Outcome:
    """Tune `strategy`; the same call again resumes and ends at the same total of trials.

    Args:
        strategy: a name, or a spelling with settings to hold, ``"agc(scope=tensor)"``.
        trials: in all, those of earlier calls included.
        base: everything about the runs that is not tuned; its seed and split are replaced.
        name: of the study, by default after the strategy and the task.
        lr_range: lowest and highest learning rate; by default around that of `base`.
        fixed_lr: tune the fields alone, at the learning rate of `base`.
        sampler: ``tpe``, or ``random`` where budgets are to be compared.
        seed: of the sampler, and of the trials' common training seed.

    The other arguments are those of `gclip.running.run_all`.

    Raises:
        UsageError: before any trial, for anything that can be known to be wrong.
    """
    from gclip.training import resolve_device

    choose(sampler, SAMPLERS, "sampler")
    if trials < 1:
        raise UsageError(f"trials must be at least 1, but got {trials}")
    held = _tunable_strategy(strategy)
    around = None if fixed_lr else lr_range or lr_range_around(base.lr)
    dimensions = space(held, base, around)
    base = base.replace(strategy=str(held), seed=TUNING_SEEDS + seed, split="validation")
    where = str(resolve_device(device))
    called = name or default_name(held, base)
    settings = _settings(base, dimensions, sampler, seed)

    def propose(trial: Trial) -> RunConfig:
        return _config(trial, held, base, dimensions)

    with open_study(store.path, called, settings) as study:
        coordinator = Coordinator(
            study=study,
            store=store,
            propose=propose,
            sampler=lambda its_seed: _sampler(sampler, its_seed),
            seed=seed,
            listener=on_event,
        )
        with open_pool(
            store,
            workers=workers_for(where, workers),
            device=where,
            data=data,
            dataset=dataset,
            plugins=plugins,
            threads=threads,
            listener=on_event,
        ) as pool:
            coordinator.run(pool, trials)
        return _outcome(called, counted(study), store)


def default_name(strategy: Strategy, base: RunConfig) -> str:
    """``thresholds-agc-digits``, or with the settings that a spelling holds."""
    text = "".join(c if c.isalnum() or c in "._-" else "-" for c in str(strategy)).strip("-")
    return f"thresholds-{text}-{base.task}"


def _tunable_strategy(text: str) -> Strategy:
    parsed = gclip.parse(text)
    if not isinstance(parsed, gclip.Strategy):
        raise UsageError(f"a study tunes one strategy, not a chain, but got {text!r}")
    return parsed


def _distribution(field: FieldInfo) -> BaseDistribution | None:
    """What a study may try for a field, or None for one that it leaves alone."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if field.kind != "tunable":
        return None
    if field.choices:
        return CategoricalDistribution(field.choices)
    if field.low is None or field.high is None:
        return None
    if field.type is int:
        return IntDistribution(int(field.low), int(field.high), log=field.log)
    return FloatDistribution(field.low, field.high, log=field.log)


def _config(
    trial: Trial, strategy: Strategy, base: RunConfig, dimensions: dict[str, BaseDistribution]
) -> RunConfig:
    # Four digits are far finer than the noise, and make spellings that people can copy.
    values = {name: _rounded(_suggest(trial, name, d)) for name, d in dimensions.items()}
    lr = values.pop(LR, base.lr)
    return base.replace(strategy=str(dataclasses.replace(strategy, **values)), lr=lr)


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    numbers = cast(FloatDistribution, distribution)
    value = trial.suggest_float(name, numbers.low, numbers.high, log=numbers.log)
    return min(max(_rounded(value), numbers.low), numbers.high)


def _rounded(value: Any, digits: int = _DIGITS) -> Any:
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _sampler(name: str, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if name == "random":
        return RandomSampler(seed=seed)
    # All of it said, since Optuna's defaults have changed between versions.
    return TPESampler(
        n_startup_trials=10,
        n_ei_candidates=24,
        multivariate=True,
        group=False,
        constant_liar=True,
        seed=seed,
    )


def _settings(
    base: RunConfig, dimensions: dict[str, BaseDistribution], sampler: str, seed: int
) -> dict[str, Any]:
    """What must be the same when a study is resumed."""
    settings: dict[str, Any] = json.loads(base.to_json())
    if LR in dimensions:
        del settings["lr"]
    del settings["seed"]
    ranges = {f"range of {name}": str(distribution) for name, distribution in dimensions.items()}
    return {**settings, **ranges, "sampler": sampler, "seed": seed}


def _outcome(name: str, trials: list[FrozenTrial], store: Store) -> Outcome:
    from gclip.training import RunConfig

    complete = [trial for trial in trials if trial.value is not None]
    best = max(complete, key=lambda trial: cast(float, trial.value), default=None)
    return Outcome(
        name=name,
        trials=len(trials),
        diverged=sum(_status(trial, store) == "diverged" for trial in complete),
        failed=len(trials) - len(complete),
        best=None if best is None else RunConfig.of(best.user_attrs["config"]),
        score=None if best is None else best.value,
        number=None if best is None else best.number,
    )


def _status(trial: FrozenTrial, store: Store) -> str | None:
    # A trial that was told after its coordinator's death could no longer be written on.
    return trial.user_attrs.get("status") or store.status(trial.user_attrs["key"])
