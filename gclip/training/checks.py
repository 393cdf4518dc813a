"""Is a run's config right? All mistakes are found and reported in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from gclip.clipping.base_clipper import NONFINITE
from gclip.core import registry
from gclip.core.digest import code_digest
from gclip.core.numbers import as_number, as_whole, shown
from gclip.errors import UsageError, choose
from gclip.training import data_split, models, optimizers, stepping
from gclip.training.models.builder import checked_dropout
from gclip.training.models.settings import spell
from gclip.training.problem_registry import find_problem, problem_code

_Config: TypeAlias = Any
"""A `RunConfig`, which is made of what is checked here and so is not known yet."""

WATCHED = ("", "layer")
SPLITS = ("test", "validation")
PRECISIONS = ("fp32", "bf16")
NORMALIZATIONS = ("standard", "half")

_Fields = dict[str, Any]


def check(config: _Config) -> _Fields:
    """The fields of `config` that are to be filled in or made canonical, with their values.

    Raises:
        UsageError: naming all the values that break a rule.
    """
    filled = _task(config)
    for name, value in filled.items():
        object.__setattr__(config, name, value)
    return filled | _all(
        lambda: _choice(config.split, SPLITS, "split"),
        lambda: _choice(config.watch, WATCHED, "watch"),
        lambda: _model(config),
        lambda: _choice(config.schedule, optimizers.schedules(), "schedule"),
        lambda: _choice(config.precision, PRECISIONS, "precision"),
        lambda: _choice(config.normalize, NORMALIZATIONS, "normalize"),
        lambda: _choice(config.nonfinite, NONFINITE, "nonfinite"),
        lambda: _number("fraction", config.fraction, "in (0, 1]", lambda x: 0 < x <= 1),
        lambda: _selection(config),
        lambda: _number("weight_decay", config.weight_decay, "≥ 0", lambda x: x >= 0),
        lambda: _number("label_noise", config.label_noise, "in [0, 1)", lambda x: 0 <= x < 1),
        lambda: _number("gradient_noise", config.gradient_noise, "≥ 0", lambda x: x >= 0),
        lambda: _number("spikes", config.spikes, "in [0, 1]", lambda x: 0 <= x <= 1),
        lambda: _integer("batch_size", config.batch_size, 1),
        lambda: _integer("accumulate", config.accumulate, 1),
        lambda: _integer("epochs", config.epochs, 1),
        lambda: _integer("seed", config.seed, 0),
        lambda: _typed("augment", config.augment, bool, "true or false"),
        lambda: _typed("data", config.data, str, "text"),
        lambda: _typed("code", config.code, str, "text"),
        lambda: _typed("model_code", config.model_code, str, "text"),
        lambda: _optimizer(config),
        lambda: _strategy(config),
        lambda: _stepping(config),
        lambda: _fits(config),
    )


def _known_problem(config: _Config) -> Any:
    """The problem; None for a stored run's, of a plugin that is not loaded here."""
    _typed("task", config.task, str, "a problem's spelling")
    try:
        return find_problem(config.task)
    except UsageError:
        if config.code and config.problem_code:  # it was complete when it was written
            return None
        raise


def _task(config: _Config) -> _Fields:
    """The task made canonical, and what its problem says where the config leaves it open."""
    _typed("problem_code", config.problem_code, str, "text")
    problem = _known_problem(config)
    if problem is None:
        return {}
    usual = {**_USUAL, **({} if problem.answers_for_itself else problem.defaults)}
    if problem.own_models and "model" not in problem.defaults:
        usual["model"] = ""
    found = {name: usual[name] for name in _USUAL if getattr(config, name) is None}
    if "optimizer" in found and not problem.answers_for_itself:
        own = ("lr", "momentum")
        found |= {n: problem.defaults.get(n) for n in own if getattr(config, n) is None}
    code = config.problem_code or problem_code(problem)
    return {**found, "task": str(problem), "problem_code": code}


_USUAL: _Fields = {"model": "lenet", "optimizer": "sgd", "batch_size": 32, "epochs": 5}


def _model(config: _Config) -> _Fields:
    problem = _known_problem(config)
    if problem is None and not config.model:
        return {}
    if problem is not None and problem.own_models:
        if config.model not in ("", None):
            raise UsageError(
                f"task {problem.name} builds networks of its own and takes no model, but got "
                f"{shown(config.model)}"
            )
        if config.dropout != 0:
            raise UsageError(
                f"task {problem.name} builds networks of its own and takes no dropout, but got "
                f"{shown(config.dropout)}"
            )
        return {"dropout": 0.0}
    return _built_model(config)


def _fits(config: _Config) -> _Fields:
    problem = _known_problem(config)
    if problem is not None:
        problem.check_config(config)
    return {}


def _all(*checks: Callable[[], _Fields]) -> _Fields:
    """Make every check, then raise one error for all that failed."""
    found: _Fields = {}
    mistakes: list[str] = []
    for each in checks:
        try:
            found |= each()
        except UsageError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UsageError("; ".join(mistakes))
    return found


def _choice(value: str, choices: tuple[str, ...], what: str) -> _Fields:
    choose(value, choices, what)
    return {}


def _number(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> _Fields:
    number = as_number(value)
    if number is None:
        raise UsageError(f"{name} must be a number {rule}, but got {shown(value)}")
    if not (math.isfinite(number) and holds(number)):
        raise UsageError(f"{name} must be {rule}, but got {shown(value)}")
    return {name: number}  # 1 and 1.0 are one run


def _integer(name: str, value: object, low: int) -> _Fields:
    if isinstance(value, float) or (whole := as_whole(value)) is None or whole < low:
        raise UsageError(f"{name} must be a whole number ≥ {low}, but got {shown(value)}")
    return {}


def _typed(name: str, value: object, kind: type, what: str) -> _Fields:
    if not isinstance(value, kind):
        raise UsageError(f"{name} must be {what}, but got {shown(value)}")
    return {}


def _version(name: str, value: object, newest: int) -> object:
    """The version of some rules that a config asks for, today's where it leaves that open."""
    version = newest if value is None else value
    if isinstance(version, bool) or version not in (0, newest):
        raise UsageError(
            f"{name} must be {newest}, or 0 for a run stored before there were versions, but got "
            f"{shown(version)}"
        )
    return version


def _selection(config: _Config) -> _Fields:
    version = _version("selection", config.selection, data_split.VERSION)
    try:
        applies = data_split.matters(
            fraction=config.fraction, split=config.split, normalize=config.normalize
        )
    except TypeError:  # a fraction that is no number, which its own check says
        applies = False
    return {"selection": version if applies else 0}


def _stepping(config: _Config) -> _Fields:
    version = _version("stepping", config.stepping, stepping.VERSION)
    try:
        strategy = registry.parse_for_run(config.strategy)
    except (UsageError, TypeError):  # its own check says so; or it is of a plugin not loaded here
        return {"stepping": config.stepping or 0}
    return {"stepping": version if stepping.matters(strategy, config.schedule) else 0}


def _optimizer(config: _Config) -> _Fields:
    facts = optimizers.spec(config.optimizer)
    lr: object = facts.lr if config.lr is None else config.lr
    return _all(
        lambda: _number("lr", lr, "> 0", lambda x: x > 0),
        lambda: _momentum(config, facts.momentum),
        lambda: _settings(config),
    )


def _momentum(config: _Config, default: float | None) -> _Fields:
    if config.momentum is None:
        return {"momentum": default}
    if default is None:
        having = [name for name in optimizers.names() if optimizers.spec(name).momentum is not None]
        raise UsageError(
            f"momentum belongs to the optimizers {', '.join(having)}, but {config.optimizer} got "
            f"{shown(config.momentum)}"
        )
    return _number("momentum", config.momentum, "in [0, 1)", lambda x: 0 <= x < 1)


def _built_model(config: _Config) -> _Fields:
    # With a digest it is canonical already: as with `_strategy`, its plugin need not be loaded.
    _typed("model", config.model, str, "a model's spelling")
    _typed("model_code", config.model_code, str, "text")
    found = _number("dropout", config.dropout, "in [0, 1)", lambda x: 0 <= x < 1)
    if config.model_code:
        return found
    name, settings = models.parse(config.model)
    if found["dropout"]:
        checked_dropout(config.model, found["dropout"])
    if settings.get("dropout"):  # one run, however it is asked for
        found["dropout"] = settings.pop("dropout")
    return {"model": spell(name, settings), "model_code": models.code_digest(name), **found}


def _settings(config: _Config) -> _Fields:
    try:
        settings = json.loads(json.dumps(dict(config.optimizer_settings), allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise UsageError(
            "optimizer_settings must map names to numbers, true or false, or lists of them, but "
            f"got {shown(config.optimizer_settings)}"
        ) from None
    optimizers.check_settings(config.optimizer, settings)
    pairs = tuple((name, _frozen(value)) for name, value in sorted(settings.items()))
    return {"optimizer_settings": pairs}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _strategy(config: _Config) -> _Fields:
    # A config with a digest is canonical already; so a stored run can be read where the plugin
    # that its strategy came from is not loaded.
    _typed("strategy", config.strategy, str, "a strategy's spelling")
    if config.code:
        return {}
    strategy = registry.parse_for_run(config.strategy)
    return {"strategy": str(strategy), "code": code_digest(strategy)}
