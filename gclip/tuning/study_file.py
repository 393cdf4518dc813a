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

The names at the top are those of `gclip.tuning.study.Request`, and ``study``, ``plugins``,
``workers`` and ``fleet``; those under ``[run]`` are the fields of `gclip.training.RunConfig`, with
the images' folder as ``data``, and ``recipe``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gclip.core.files import read_file
from gclip.errors import UsageError, unknown
from gclip.tuning.options import NAME, WHOLE, OptionKind, is_whole, names_such_as, options_of

_SEARCH = {name: option.kind for name, option in options_of().items() if option.kind.description}
_KINDS: dict[str, OptionKind] = {
    "study": NAME,
    "name": NAME,
    "strategies": names_such_as('["norm", "agc"]'),
    **_SEARCH,
    "workers": WHOLE,
    "fleet": OptionKind(
        "auto, off or a whole number", lambda value: isinstance(value, str) or is_whole(value)
    ),
    "plugins": names_such_as('["my_strategies.py"]'),
}
_NOT_IN_RUN = {"split", "selection", "strategy", "code", "model_code", "stepping", "seed"}


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """What a study file says; what it leaves out is left out here.

    Attributes:
        settings: by the names at the top; ``study`` is the study's name.
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
        text = read_file(path).decode("utf-8")
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not text") from None
    try:
        top = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from None
    tables = {}
    for name in ("space", "run"):
        tables[name] = top.pop(name, {})
        if not isinstance(tables[name], dict):
            raise UsageError(f"{where}: {name} is a table, [{name}], and not a value")
    for name, value in top.items():
        if name not in _KINDS:
            unknown(f"setting in {where}:", name, [*_KINDS, "space", "run"])
        kind = _KINDS[name]
        if not kind.fits(value):
            raise UsageError(f"{where}: {name} must be {kind.description}, but got {value!r}")
    runs = [f.name for f in dataclasses.fields(RunConfig) if f.name not in _NOT_IN_RUN]
    for name in tables["run"]:
        if name not in (*runs, "recipe"):
            unknown(f"setting under [run] in {where}:", name, [*runs, "recipe"])
    if "seeds" in top and isinstance(top["seeds"], int):
        top["seeds"] = range(top["seeds"])
    settings = {name: tuple(v) if isinstance(v, list | range) else v for name, v in top.items()}
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
