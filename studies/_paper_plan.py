"""The plan of a paper: its sections, each a question with a setting and a budget.

A plan is a TOML file with tables ``[[section]]``, and ``[[shown]]`` for the figures that README and
docs show; ``studies/paper.toml`` is ours and says what each key is.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gclip.errors import UsageError, choose, unknown

PLAN = Path(__file__).with_name("paper.toml")

TUNING, REPEATED, COMPARE = "tuning", "repeated", "compare"
_ALSO = ("sensitivity", "lr_ceiling", "noise", "budget")
KINDS = (TUNING, REPEATED, COMPARE, *_ALSO)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A question of a paper.

    Attributes:
        name: of it, and of the folder of its store where `store` names no other.
        question: what is asked.
        what: what is trained, and what that is not.
        study: of `KINDS`.
        strategies: spellings.
        run: fields of a config, beside the task's defaults.
        trials: of each search.
        sampler: of them.
        lr_range: learning rates that are searched, lowest and highest.
        space: changes to the ranges, as ``--space`` takes them.
        seeds: how many fresh ones; None for as many as its comparisons need.
        store: the folder of its runs.
        data: whether it needs the folder with CIFAR-10's images.
        of: the section whose searches are repeated.
        tuning_seeds: of the searches that are repeated.
        finalists: how many of the best are searched again, beside ``none`` and ``norm``.
        full: whether all figures are drawn of it, and not the few that tell what is its own.
    """

    name: str
    question: str
    what: str
    study: str
    strategies: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = None
    sampler: str = "qmc"
    lr_range: tuple[float, float] | None = None
    space: Mapping[str, str] = field(default_factory=dict)
    seeds: int | None = None
    store: str = ""
    data: bool = False
    of: str = ""
    tuning_seeds: tuple[int, ...] = ()
    finalists: int = 0
    full: bool = False

    def __post_init__(self) -> None:
        choose(self.study, KINDS, "study of a section")
        if not self.store:
            object.__setattr__(self, "store", self.name)
        for name in ("strategies", "tuning_seeds", "lr_range"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        needed = {
            TUNING: ("strategies", "trials", "lr_range"),
            REPEATED: ("of", "tuning_seeds"),
            COMPARE: ("strategies", "seeds"),
        }.get(self.study, ("strategies",))
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise UsageError(
                f"the section {self.name} is of the kind {self.study}, so it needs {missing[0]}"
            )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A file of README or docs that is a figure of the record.

    Attributes:
        file: from the root of the repository.
        parts: of the record; the first that there is.
        figure: by name.
    """

    file: str
    parts: tuple[str, ...]
    figure: str


def shown(path: Path = PLAN) -> tuple[Shown, ...]:
    """The figures that README and docs show.

    Raises:
        UsageError: the plan cannot be read, or a table of it is none of these.
    """
    try:
        tables = _read(path).get("shown", ())
        return tuple(Shown(**{**table, "parts": tuple(table["parts"])}) for table in tables)
    except (KeyError, TypeError) as error:
        raise UsageError(f"'{path}': a shown figure has file, parts and figure: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' is no plan that can be read: {error}") from error


def read_plan(path: Path = PLAN) -> tuple[Section, ...]:
    """The sections of a plan, in their order.

    Raises:
        UsageError: it is none: the file is named, and what is wrong.
    """
    given = _read(path)
    fields = [each.name for each in dataclasses.fields(Section)]
    sections = []
    for table in given.get("section", ()):
        for name in table:
            if name not in fields:
                unknown("key of a section", name, fields)
        try:
            sections.append(Section(**table))
        except TypeError as error:
            raise UsageError(f"'{path}': a section lacks a key: {error}") from error
    names = [each.name for each in sections]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not sections:
        found = f"the section {twice} twice" if twice else "no section"
        raise UsageError(f"'{path}' has {found}; a plan has sections of different names")
    for each in sections:
        if each.of:
            choose(each.of, names, "section")
    return tuple(sections)


def chosen(sections: Sequence[Section], names: Iterable[str] = ()) -> tuple[Section, ...]:
    """Those that are named, in the plan's order; all where none is.

    Raises:
        UsageError: an unknown name.
    """
    known = [each.name for each in sections]
    wanted = {choose(name, known, "section") for name in names}
    return tuple(each for each in sections if not wanted or each.name in wanted)
