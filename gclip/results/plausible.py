"""Can a run that is sealed be what it says? Seals prove that nothing has changed since, not that it
was ever right: another program, or a hand, may have made it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from gclip.results.implausible import Implausible
from gclip.results.plausible_arrays import check_archive
from gclip.training.metric import Metric

_STATUSES = ("finished", "diverged", "pruned", "failed")
_TABLES = ("clipping", "scores", "metric")
_LISTS = ("curve", "layers", "layer_players")
_SHARES = ("accuracy", "chance")
_POINT = ("epoch", "step", "train_loss", "accuracy", "loss", "score")
_CLIPPING = ("steps", "clip_rate", "group_rate", "limited_rate", "skipped", "not_finite")
_MOST_LETTERS = 40


def check_run(key: str, config: Any, result: Any, environment: Any, archive: bytes) -> None:
    """Check what a run's files say.

    Args:
        key: of the run.
        config, result, environment: what the JSON files hold.
        archive: the arrays' file.

    Raises:
        Implausible: naming what cannot be.
    """
    for name, value in (("config", config), ("result", result), ("environment", environment)):
        if not isinstance(value, dict):
            raise Implausible(f"its {name} is no table")
    if _key(config) != key:
        raise Implausible("its config is that of another run")
    _check_config(config)
    _check_texts("environment", environment, ("device", "date"))
    _check_result(result)
    check_archive(archive, result)


def _key(config: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _check_config(config: Mapping[str, Any]) -> None:
    for name in ("strategy", "task"):
        if not isinstance(config.get(name), str):
            raise Implausible(f"its {name} is no text")
    if not isinstance(config.get("seed"), int):
        raise Implausible("its seed is no whole number")


def _check_result(result: Mapping[str, Any]) -> None:
    if result.get("status") not in _STATUSES:
        raise Implausible(f"its status is {_short(result.get('status'))}")
    for names, kind, word in ((_TABLES, dict, "table"), (_LISTS, list, "list")):
        for name in names:
            if not isinstance(result.get(name) or kind(), kind):
                raise Implausible(f"its {name} is no {word}")
    _check_texts("result", result, ("message",))
    for name in _SHARES:
        value = _number(name, result.get(name))
        if not math.isnan(value) and not 0.0 <= value <= 1.0:
            raise Implausible(f"its {name} is {value:g}")
    if _number("seconds", result.get("seconds")) < 0:
        raise Implausible(f"its seconds are {result['seconds']:g}")
    _check_numbers("", result, ("loss", "train_loss", "stopped_at"))
    _check_numbers("score ", result.get("scores") or {}, result.get("scores") or ())
    for point in result.get("curve") or ():
        if not isinstance(point, dict):
            raise Implausible("its curve has a point that is no table")
        _check_numbers("curve's ", point, _POINT)
    _check_clipping(result.get("clipping") or {})
    if result.get("metric"):
        _check_metric(result["metric"])
    for name in ("layers", "layer_players"):
        if not all(isinstance(each, str) for each in result.get(name) or ()):
            raise Implausible(f"its {name} are no texts")


def _check_clipping(clipping: Mapping[str, Any]) -> None:
    _check_numbers("clipping's ", clipping, _CLIPPING)
    _check_texts("clipping", clipping, ("verdict",))
    first = clipping.get("first_not_finite") or {"step": 0, "parameters": []}
    if not isinstance(first, dict) or not _is_place(first.get("step"), first.get("parameters")):
        raise Implausible("its first_not_finite is no step with names")
    quantiles = clipping.get("norm_quantiles") or {}
    if not isinstance(quantiles, dict):
        raise Implausible("its norm_quantiles is no table")
    for name in quantiles:
        _number("quantile", name)
    _check_numbers("quantile ", quantiles, quantiles)


def _is_place(step: Any, names: Any) -> bool:
    return (
        isinstance(step, int) and isinstance(names, list) and all(isinstance(n, str) for n in names)
    )


def _check_metric(recorded: Mapping[str, Any]) -> None:
    try:
        Metric.from_dict(recorded)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Implausible(f"its metric is none: {_short(str(error))}") from None


def _check_texts(what: str, values: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if not isinstance(values.get(name) or "", str):
            raise Implausible(f"its {what}'s {name} is no text")


def _check_numbers(what: str, values: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        value = values.get(name)
        if type(value) is not float:  # what nearly all of them are
            _number(f"{what}{_cut(name)}", value)


def _number(name: str, value: Any) -> float:
    """A number, which JSON may spell "nan" or "inf"; nothing is NaN."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise Implausible(f"its {name} is no number") from None


def _short(value: Any) -> str:
    return repr(_cut(str(value)))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"
