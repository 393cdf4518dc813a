"""What the studies of a store have tuned, those that belong to one question together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gclip import studies
from gclip.errors import UsageError
from gclip.studies._words import listed
from gclip.tuning.plan import Plan
from gclip.tuning.sqlite import find_study, read_study, studies_in
from gclip.tuning.sqlite_file import UnreadableStudy
from gclip.tuning.trials import Counts, best_of, config_of, counted, counts

if TYPE_CHECKING:
    from gclip.training import RunConfig

_APART = ("strategy", "code", "stepping", "seed", "split", "lr", "data")
"""Of a config: what may differ between studies that are compared."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One strategy's study.

    Attributes:
        strategy: its spelling, with what the study held.
        plan: what was searched.
        counts: how its trials ended.
        best: the run of the best trial.
        score: what it scored on validation data, the best of many and so better than it is.
    """

    strategy: str
    plan: Plan
    counts: Counts
    best: RunConfig
    score: float

    @property
    def default(self) -> RunConfig:
        """The strategy as it comes, at the learning rate that was not tuned."""
        return self.plan.base


def tuned_in(
    store: Path,
    names: Iterable[str] = (),
    on_left_out: Callable[[str], None] = lambda _: None,
) -> list[Tuned]:
    """What the studies of a store found.

    Args:
        names: of these studies alone. By default all that belong to one question, that which was
            worked on last: what ``budget`` has tuned is apart from what ``thresholds`` has. Files
            that cannot be used are left out.
        on_left_out: is told what is left out, and why.

    Raises:
        UsageError: an unknown name; no study; studies that do not belong together; a strategy
            that two of them tuned; a study without a complete trial; a named one whose file cannot
            be used.
    """
    chosen = list(dict.fromkeys(names))
    paths = [find_study(store, name) for name in chosen] or list(studies_in(store).values())
    if not paths:
        raise UsageError(
            f"there is no study in '{store}' to report; begin with: "
            "gclip study run thresholds -s none -s norm -s agc --sampler random"
        )
    tuned = []
    touched: dict[str, int] = {}
    for path in paths:
        try:
            each = _read(path)
            tuned.append(each)
            touched[each.plan.name] = path.stat().st_mtime_ns
        except UnreadableStudy as error:
            if chosen or len(paths) == 1:
                raise
            on_left_out(str(error))
    if not tuned:
        raise UsageError(f"no study in '{store}' can be used; gclip study list says why")
    if not chosen:
        tuned = _last_question(tuned, touched, on_left_out)
    kinds: dict[str, list[str]] = {}
    for each in tuned:
        kinds.setdefault(_kind(each.plan.base), []).append(each.plan.name)
    if len(kinds) > 1:
        groups = "; ".join(", ".join(names) for names in kinds.values())
        raise UsageError(
            f"these studies trained under different settings, so they make no one table: {groups}. "
            "Name those that belong together"
        )
    spelled = [each.strategy for each in tuned]
    twice = next((text for text in spelled if spelled.count(text) > 1), None)
    if twice is not None:
        both = listed(each.plan.name for each in tuned if each.strategy == twice)
        raise UsageError(f"{both} tuned the same strategy, {twice}; name one of them")
    return tuned


def _read(path: Path) -> Tuned:
    with read_study(path) as study:
        plan = Plan.from_study(study, path)
        trials = counted(study)
        best = best_of(trials, plan.metric)
        if best is not None:
            return Tuned(
                strategy=str(plan.space.strategy),
                plan=plan,
                counts=counts(trials),
                best=config_of(best),
                score=float(best.values[0]),
            )
    raise UsageError(f"the study {path.stem} has no complete trial, so it has tuned nothing")


def _last_question(
    tuned: Sequence[Tuned], touched: Mapping[str, int], on_left_out: Callable[[str], None]
) -> list[Tuned]:
    """The studies of one question: that of the study that was worked on last."""
    questions: dict[str, list[Tuned]] = {}
    for each in tuned:
        questions.setdefault(_question(each.plan.name), []).append(each)
    last = max(tuned, key=lambda each: touched[each.plan.name])
    for question, others in questions.items():
        if question != _question(last.plan.name):
            names = " ".join(each.plan.name for each in others)
            on_left_out(
                f"what {question} tuned, which is another question: gclip study report {names}"
            )
    return questions[_question(last.plan.name)]


def _question(name: str) -> str:
    """The study whose trials are kept under this name; ``thresholds`` where a user named them."""
    asked = [each for each in studies.names() if name.startswith(f"{each}-")]
    return asked[0] if asked else "thresholds"


def _kind(base: RunConfig) -> str:
    """All that must agree between studies that are compared."""
    values = json.loads(base.to_json())
    return json.dumps({key: value for key, value in values.items() if key not in _APART})
