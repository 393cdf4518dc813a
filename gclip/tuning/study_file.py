"""A study written down in a TOML file, to be run by ``gclip study run --file study.toml``::

    study = "thresholds"
    strategies = ["norm", "agc(scope=tensor)"]
    trials = 40
    sampler = "tpe"
    pruner = "median"
    seeds_per_trial = 3

    [space]
    clip_factor = "1e-4..1:log"     # a range
    scope = ["unit", "tensor"]      # one of these
    max_norm = 0.5                  # held

    [run]
    task = "digits"
    epochs = 3

The names at the top are those of `gclip.tuning.study.Request`; those under ``[run]`` are the
fields of `gclip.training.RunConfig`, and ``recipe`` and ``data``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gclip.errors import UsageError, unknown

_KINDS: dict[str, tuple[str, str]] = {
    "study": ("word", "a name"),
    "name": ("word", "a name"),
    "strategies": ("words", 'a list such as ["norm", "agc"]'),
    "trials": ("whole", "a whole number"),
    "seeds": ("seeds", "a count such as 10, or a list such as [0, 1, 5]"),
    "lr_range": ("pair", "two numbers such as [0.001, 0.5]"),
    "fixed_lr": ("flag", "true or false"),
    "sampler": ("word", "a name"),
    "pruner": ("word", "a name"),
    "seeds_per_trial": ("whole", "a whole number"),
    "objectives": ("words", 'a list such as ["accuracy", "clip_rate"]'),
    "points": ("whole", "a whole number"),
    "seed": ("whole", "a whole number"),
    "workers": ("whole", "a whole number"),
    "fleet": ("fleet", "auto, off or a whole number"),
    "plugins": ("words", 'a list such as ["my_strategies.py"]'),
}
_NOT_IN_RUN = {"split", "selection", "strategy", "code", "stepping", "seed"}


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """What a study file says; what it leaves out is left out here.

    Attributes:
        settings: by the names of `Request`'s fields; ``study`` is the study's name.
        space: field to range, as `gclip.tuning.space` reads them.
        run: settings of the runs.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


def read_study_file(path: str | Path) -> StudyFile:
    """Read a study file.

    Raises:
        UsageError: it is not there, it is not TOML, or it says something that no study
            understands.
    """
    from gclip.training import RunConfig

    where = f"the study file '{path}'"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not text") from None
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from None
    tables = {}
    for name in ("space", "run"):
        tables[name] = found.pop(name, {})
        if not isinstance(tables[name], dict):
            raise UsageError(f"{where}: {name} is a table, [{name}], and not a value")
    for name, value in found.items():
        if name not in _KINDS:
            unknown(f"setting in {where}:", name, [*_KINDS, "space", "run"])
        kind, words = _KINDS[name]
        if not _fits(value, kind):
            raise UsageError(f"{where}: {name} must be {words}, but got {value!r}")
    runs = [f.name for f in dataclasses.fields(RunConfig) if f.name not in _NOT_IN_RUN]
    for name in tables["run"]:
        if name not in (*runs, "recipe"):
            unknown(f"setting under [run] in {where}:", name, [*runs, "recipe"])
    if "seeds" in found and isinstance(found["seeds"], int):
        found["seeds"] = range(found["seeds"])
    settings = {name: tuple(v) if isinstance(v, list | range) else v for name, v in found.items()}
    space = {name: _as_text(where, name, v) for name, v in _flat(tables["space"]).items()}
    return StudyFile(settings=settings, space=space, run=tables["run"])


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """``agc.clip_factor = …`` is a table in TOML, and one name here."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found


def _as_text(where: str, name: str, value: Any) -> str:
    """A range as it stands, a list as choices, a single value to hold."""
    if isinstance(value, bool | int | float | str):
        return _plain(value)
    if (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(each, bool | int | float | str) for each in value)
    ):
        return "|".join(_plain(each) for each in value)
    raise UsageError(
        f"{where}: {name} under [space] must be a range such as '1e-4..1:log', a list of choices "
        f"or a single value, but got {value!r}"
    )


def _plain(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fits(value: Any, kind: str) -> bool:
    def whole(each: Any) -> bool:
        return isinstance(each, int) and not isinstance(each, bool)

    def number(each: Any) -> bool:
        return isinstance(each, int | float) and not isinstance(each, bool)

    some = isinstance(value, list) and len(value) > 0
    if kind == "word":
        return isinstance(value, str) and bool(value)
    if kind == "fleet":
        return isinstance(value, str) or whole(value)
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "whole":
        return whole(value)
    if kind == "words":
        return some and all(isinstance(each, str) for each in value)
    if kind == "pair":
        return some and len(value) == 2 and all(number(each) for each in value)
    if whole(value):
        return bool(value > 0)
    return some and all(whole(each) for each in value)
