"""What of a paper's section is drawn together, and which figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gclip.results.record import Part
from gclip.studies._paper_plan import COMPARE, REPEATED, TUNING, Section

if TYPE_CHECKING:
    import pandas as pd

STEP_SEEDS = (0, 1, 2)
"""Of the runs whose steps are kept."""
FEW = ("none", "norm", "soft", "value", "agc", "percentile", "zclip", "adagc")
"""Who is drawn where each strategy has a panel of its own: the best known of each family."""

_AS_THEY_COME = ("scores", "forest", "ranks", "improvement")
"""Not `cost`: runs of one fleet share its seconds, whatever their strategies."""
_OF_FEW = ("performance_profile", "learning_curves")
_TUNED = ("tuned", "forest")
_STEPS = ("norms", "clip_rate", "limits", "norm_distributions")
_TRIALS = ("slices", "importances", "stability_map")


def parts(
    section: Section, answers: Mapping[str, Mapping[str, Any]], runs: pd.DataFrame
) -> list[Part]:
    """The parts of a section.

    Args:
        section: of the plan.
        answers: what it has written down, by study and search.
        runs: one row a run and role.
    """
    name = section.name
    if section.study == COMPARE:
        every: dict[str, list[Any]] = {"role": ["compare"]}
        stepped = {**every, "seed": list(STEP_SEEDS)}
        if section.run.get("watch"):
            return [Part(name=name, section=name, rows=stepped, figures=("layers", "norms"))]
        return [
            Part(name=name, section=name, rows=every, figures=(*_AS_THEY_COME, *_OF_FEW)),
            Part(name=f"{name}-steps", section=name, rows=stepped, figures=_STEPS),
        ]
    if section.study == TUNING:
        few: list[Any] = _few(runs)
        full = section.full
        known = [_known(section, few, answers)] if len(few) < len(section.strategies) else []
        shown = _AS_THEY_COME if full else ("scores",)
        return [
            Part(name=name, section=name, rows={"role": ["default"]}, figures=shown),
            _reported(section, f"{name}-tuned", "seed0", answers),
            *known,
            Part(
                name=f"{name}-trials",
                section=name,
                study="thresholds",
                rows={"role": ["trial"], "search": ["seed0"], "of": few},
                figures=_TRIALS if full else ("stability_map",),
                searched=True,
            ),
            Part(
                name=f"{name}-steps",
                section=name,
                rows={"role": ["default"], "seed": list(STEP_SEEDS), "of": few},
                figures=_STEPS if full else ("norms",),
            ),
        ]
    if section.study == REPEATED:
        return [
            _reported(section, f"{name}-{seed}", f"seed{seed}", answers)
            for seed in section.tuning_seeds
        ]
    entry = answers[f"{section.study} seed0"]
    return [
        Part(
            name=name,
            section=name,
            study=section.study,
            rows={"role": ["grid"]},
            figures=(section.study,),
            **_answered(entry),
        )
    ]


def _reported(
    section: Section, name: str, search: str, answers: Mapping[str, Mapping[str, Any]]
) -> Part:
    return Part(
        name=name,
        section=section.name,
        study="report",
        rows={"role": ["tuned", "default"], "search": [search]},
        figures=_TUNED if section.full else ("tuned",),
        **_answered(answers[f"report {search}"]),
    )


def _known(section: Section, few: Sequence[str], answers: Mapping[str, Mapping[str, Any]]) -> Part:
    """The best-known rows of a long table; what may be claimed stays corrected over all of it."""
    whole = _reported(section, f"{section.name}-known", "seed0", answers)
    return dataclasses.replace(
        whole,
        rows={**whole.rows, "of": few},
        table=[row for row in whole.table if row["strategy"] in few],
        figures=("tuned",),
    )


def _answered(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("table", "columns", "notes")}


def _few(runs: pd.DataFrame) -> list[str]:
    """The best known of those that take part; all where they are few."""
    every: Sequence[str] = list(dict.fromkeys(runs.loc[runs["role"] == "default", "of"]))
    return list(every) if len(every) <= len(FEW) else [each for each in FEW if each in every]
