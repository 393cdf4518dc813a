"""A record made of the stores of a paper: what its sections asked, and the runs that answer.

Only sections that are complete are in it; of one that is not, the record keeps what it had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gclip
from gclip.results import Store, load, load_curves, load_layers, load_steps
from gclip.results.record import FRAMES, LABEL, Part, Record
from gclip.studies._paper import command, prepared, sources_of
from gclip.studies._paper_parts import STEP_SEEDS, parts
from gclip.studies._paper_plan import COMPARE, REPEATED, TUNING, Section
from gclip.tuning.grid_answers import answers_in
from gclip.tuning.plan import Plan
from gclip.tuning.sqlite import read_study, studies_in
from gclip.tuning.study_trials import attempt_of
from gclip.tuning.trial_frame import TRIAL_COLUMNS, rows_of
from gclip.tuning.trials import counted

if TYPE_CHECKING:
    import pandas as pd

POINTS = 60
"""Blocks of steps that are kept of a run."""
NEAR = 0.1
"""So near to an end of its range, as a share of it, a value may owe its place to the range."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a store has of one section.

    Attributes:
        section: of the plan.
        runs: one row a run and role.
        trials: one row a trial.
        curves, steps, layers: of the runs that are reported.
        environments: by id.
        told: what the record says of it.
        parts: what belongs together.
    """

    section: Section
    runs: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame
    environments: Mapping[str, Mapping[str, Any]]
    told: Mapping[str, Any]
    parts: Sequence[Part] = field(default_factory=tuple)


def gather(section: Section, sections: Sequence[Section], root: Path) -> Found | None:
    """What the stores have of a section; None where it is not complete."""
    import pandas as pd

    path = root / section.store
    if not path.is_dir():
        return None
    store = Store(path)
    answers = dict(_answers(section, path))
    trials = _trials(section, path, answers)
    rows = _named(section, sections, trials, answers)
    if rows is None:
        return None
    keys = list(dict.fromkeys(row["key"] for row in rows))
    found = load(store, keys)
    if len(found) < len(keys):
        return None
    runs = pd.DataFrame(rows).merge(found, on="key")
    known, by_key = _environments(store, keys)
    source = "; ".join(sources_of(path))
    runs = runs.assign(environment=runs["key"].map(by_key), source=source, section=section.name)
    reported = list(dict.fromkeys(runs.loc[runs["role"] != "trial", "key"]))
    stepped = runs["role"].isin(["default", "compare"]) & runs["seed"].isin(STEP_SEEDS)
    few = list(dict.fromkeys(runs.loc[stepped, "key"]))
    return Found(
        section=section,
        runs=runs,
        trials=trials,
        curves=load_curves(store, reported),
        steps=_rounded(load_steps(store, few, points=POINTS)),
        layers=_rounded(load_layers(store, few)),
        environments=known,
        told=_told(section, source, trials, answers),
        parts=parts(section, answers, runs),
    )


def record_of(found: Sequence[Found], before: Record | None, plan: Sequence[Section]) -> Record:
    """The record of these sections, and of those that an earlier one had of the same plan.

    Args:
        found: what is complete.
        before: the earlier record.
        plan: all sections: others leave the record.
    """
    import pandas as pd

    fresh = {each.section.name: each for each in found}
    kept = [
        each.name
        for each in plan
        if before is not None and each.name in before.sections and each.name not in fresh
    ]
    names = [each.name for each in plan if each.name in fresh or each.name in kept]
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in FRAMES}
    sections: dict[str, Mapping[str, Any]] = {}
    every: dict[str, Part] = {}
    environments: dict[str, Mapping[str, Any]] = {}
    for name in names:
        if name in fresh:
            one = fresh[name]
            sections[name] = one.told
            every |= {part.name: part for part in one.parts}
            environments |= one.environments
            for frame in FRAMES:
                frames[frame].append(getattr(one, frame))
        elif before is not None:
            sections[name] = before.sections[name]
            every |= {p.name: p for p in before.parts.values() if p.section == name}
            own = before.runs[before.runs["section"] == name]
            used = set(own["environment"])
            environments |= {i: e for i, e in before.environments.items() if i in used}
            for frame in FRAMES:
                whole = getattr(before, frame)
                mine = "section" if "section" in whole else "key"
                wanted = [name] if mine == "section" else list(own["key"])
                frames[frame].append(whole[whole[mine].isin(wanted)])
    together = {
        name: pd.concat([each for each in some if len(each)] or some[:1], ignore_index=True)
        for name, some in frames.items()
    }
    for name in ("curves", "steps", "layers"):
        together[name] = together[name].drop_duplicates(ignore_index=True)
    return Record(sections=sections, parts=every, environments=environments, **together)


def _answers(section: Section, store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers of a section, the newest of each kind: by study, and by search."""
    for entry in answers_in(store).found:
        if entry.get("command") == command(section) and "table" in entry:
            searches = entry.get("searches") or [""]
            yield f"{entry['study']} {search_of(searches[0])}", entry


def search_of(study: str) -> str:
    """Which search a study belongs to: ``seed0``, or ``seed1`` and so on of those repeated."""
    head = study.partition("-")[0]
    return head if head.startswith("seed") else "seed0"


def _named(
    section: Section,
    sections: Sequence[Section],
    trials: pd.DataFrame,
    answers: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]] | None:
    """A row for each run and what it was for, or None where the section is not complete."""
    if section.study == COMPARE:
        from gclip.execution.execution import Execution

        base, _ = prepared(section, None, Execution())
        return [
            _row({"key": base.replace(strategy=text, seed=seed).key}, "compare", "", text)
            for seed in range(section.seeds or 1)
            for text in (str(gclip.parse(each)) for each in section.strategies)
        ]
    searches = {TUNING: ("seed0",), REPEATED: tuple(f"seed{n}" for n in section.tuning_seeds)}
    wanted = searches.get(section.study)
    if wanted is None:
        entry = answers.get(f"{section.study} seed0")
        return None if entry is None else [_row(each, "grid", "") for each in entry["labels"]]
    rows: list[dict[str, Any]] = []
    budget = next((each.trials for each in sections if each.name == section.of), section.trials)
    for search in wanted:
        tuned, reported = answers.get(f"thresholds {search}"), answers.get(f"report {search}")
        own = trials[trials["search"] == search]
        if tuned is None or reported is None or not _whole(own, tuned["searches"], budget):
            return None
        of = zip(own["keys"], own["of"], strict=True)
        for key, text in ((key, text) for keys, text in of for key in keys.split()):
            rows.append(_row({"key": key}, "trial", search, text))
        rows += [_row(each, each["form"], search) for each in reported["labels"]]
    return rows


def _row(label: Mapping[str, Any], role: str, search: str, of: str = "") -> dict[str, Any]:
    own = {f"{LABEL}{name}": value for name, value in label.items() if name != "key"}
    of = of or str(label.get("strategy", ""))
    return {"key": label["key"], "role": role, "search": search, "of": of, **own}


def _whole(trials: pd.DataFrame, searches: Iterable[str], budget: int | None) -> bool:
    """Whether each of these studies has as many trials as the plan wants."""
    counts = trials["study"].value_counts()
    return all(counts.get(study, 0) >= (budget or 0) for study in searches)


def _trials(
    section: Section, store: Path, answers: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    import pandas as pd

    files, rows = studies_in(store), []
    for name, entry in answers.items():
        if name.startswith("thresholds "):
            for study in entry["searches"]:
                own = {"section": section.name, "search": search_of(study)}
                with read_study(files[study]) as opened:
                    trials = counted(opened)
                    told = rows_of(Plan.from_study(opened, files[study]), trials)
                rows += [
                    {**own, "of": row["strategy"], "attempt": attempt_of(trial), **row}
                    for trial, row in zip(trials, told, strict=True)
                ]
    return pd.DataFrame(rows, columns=["section", "search", "of", "attempt", *TRIAL_COLUMNS])


def _environments(
    store: Store, keys: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the runs ran on, by an id made of it; and the id of each run."""
    known: dict[str, dict[str, Any]] = {}
    by_key = {}
    for key in keys:
        stored = store.read(key)
        said = {} if stored is None else stored.environment
        said = {name: value for name, value in said.items() if name not in ("date", "fleet")}
        text = json.dumps(said, sort_keys=True, default=str)
        name = f"e{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        known[name] = said
        by_key[key] = name
    return known, by_key


def _told(
    section: Section,
    source: str,
    trials: pd.DataFrame,
    answers: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    plan = {
        k: v
        for k, v in dataclasses.asdict(section).items()
        if v not in (None, "", (), {}, 0, False)
    }
    return {
        **plan,
        "command": command(section),
        "source": source,
        "dates": sorted(str(each["date"])[:10] for each in answers.values())[:1],
        "near an end": near_ends(trials),
    }


def near_ends(trials: pd.DataFrame) -> list[str]:
    """The winners that lie within `NEAR` of an end of a range, a sentence each."""
    said = []
    for row in trials[trials["best"].astype(bool)].to_dict("records") if len(trials) else ():
        values, ranges = json.loads(row["params"]), json.loads(row["distributions"])
        for name, value in values.items():
            kind = ranges[name].get("attributes", {})
            if "low" not in kind:
                continue
            low, high = float(kind["low"]), float(kind["high"])
            place = (value - low) / (high - low)
            if kind.get("log"):
                place = math.log(value / low) / math.log(high / low)
            if not NEAR <= place <= 1 - NEAR:
                end = "lower" if place < NEAR else "upper"
                said.append(
                    f"{row['strategy']} ({row['search']}): {name} {value:.4g} is near the {end} "
                    f"end of {low:g} … {high:g}"
                )
    return said


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Six digits of each number: these are drawn, not counted."""
    numbers = list(frame.select_dtypes("float").columns)
    return frame.assign(**{name: frame[name].map(lambda v: float(f"{v:.6g}")) for name in numbers})
