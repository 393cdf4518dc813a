"""What does each strategy withstand? Wrong labels, heavy-tailed gradient noise, injected spikes.

Every strategy is trained clean and at a few levels of each disturbance, with the same seeds; a
seed brings the same disturbances to all. The disturbances are those of a run's `label_noise`,
`gradient_noise` and `spikes`, one at a time, and reach the gradients before they are clipped.
Scored on the clean test images. Thresholds and learning rate are as given, not tuned; digits are
trained at a learning rate at which ``none`` trains undisturbed, or there were nothing to withstand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.results.statistics import rule, seeds_needed, trained_from
from gclip.studies._pairs import TESTS, compared, too_few
from gclip.studies._runs import (
    Cell,
    drawing,
    failures,
    labels_of,
    points_of,
    scored,
    seeds_of,
    spellings,
    summary,
    trained,
)
from gclip.text.screen import percent
from gclip.tuning.dimension import rounded
from gclip.tuning.study import Answer, Request

if TYPE_CHECKING:
    import pandas as pd

USES = ("points", "seeds")
SETTINGS = {"digits": {"lr": 0.02}}
"""By task, where the command leaves it open: undisturbed, ``none`` ends at 94 % in all of ten runs.
(At the task's own default, near the edge of stability, in none.)"""

POINTS = 2
LEVELS = {"label_noise": (0.4, 2.0), "gradient_noise": (1.0, 4.0), "spikes": (0.1, 10.0)}
"""The highest level of each disturbance, and how many times lower each next one is."""
CLEAN = "clean"
SAID = {
    CLEAN: "clean",
    "label_noise": "label noise",
    "gradient_noise": "gradient noise",
    "spikes": "spikes",
}

COLUMNS = {
    "disturbance": "condition",
    "strategy": "strategy",
    "accuracy": "accuracy_text",
    "trained": "trained_text",
    "drop": "drop_text",
    "vs none": "versus_text",
    "evidence": "evidence",
    "clipped %": "clipped_text",
    "div.": "diverged",
    "n": "n",
}


def run(request: Request) -> Answer:
    """One row for each disturbance, level and strategy."""
    cells = cells_of(request)
    runs = trained(request, cells)
    rows = table(runs)
    return Answer(
        rows=rows,
        columns=COLUMNS,
        notes=[*_notes(runs, rows, request.base.lr), *failures(runs)],
        figures={"noise": drawing("noise", "noise", runs, rows)},
        labels=labels_of(cells),
        more={"split": request.base.split},
        ok=any(row["n"] for row in rows),
    )


def run_count(request: Request) -> int:
    """How many runs there will be, for a display of how far they are."""
    return len(cells_of(request))


def cells_of(request: Request) -> list[Cell]:
    """All runs, seed by seed: a study that is interrupted has whole pairs."""
    chosen = spellings(request)
    conditions = conditions_of(points_of(request, POINTS, least=1))
    for name in LEVELS:
        if getattr(request.base, name):
            raise UsageError(f"this study varies {name}; leave --{name.replace('_', '-')} out")
    cells: list[Cell] = []
    # As many as the comparisons of one condition need to show a difference.
    for seed in seeds_of(request, range(seeds_needed(len(chosen) - 1))):
        for name, level in conditions:
            for text in chosen:
                change = {} if name == CLEAN else {name: level}
                config = request.base.replace(strategy=text, seed=seed, **change)
                cells.append(({"strategy": text, "disturbance": name, "level": level}, config))
    return cells


def conditions_of(points: int) -> list[tuple[str, float]]:
    """What is done to the runs: nothing, then each disturbance at `points` levels, rising."""
    conditions = [(CLEAN, 0.0)]
    for name, (top, ratio) in LEVELS.items():
        conditions += [(name, rounded(top / ratio**place)) for place in reversed(range(points))]
    return conditions


def table(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One row for each condition and strategy, the most accurate of a condition first.

    Conditions stand in one order, whatever that of `runs`: clean, then each disturbance, rising.

    ``drop`` is what a strategy loses to its own clean runs, ``versus`` its difference to ``none``
    under the same condition; both are paired by seed. Holm's correction is over the strategies of
    one condition.
    """
    rows: list[dict[str, Any]] = []
    least = trained_from(scored(runs))
    groups: Any = runs.groupby(["disturbance", "level", "strategy"], sort=False)
    by_cell = {(name, float(level), text): some for (name, level, text), some in groups}
    places = {name: place for place, name in enumerate([CLEAN, *LEVELS])}
    conditions = {cell[:2] for cell in by_cell}
    for name, level in sorted(conditions, key=lambda c: (places.get(c[0], len(places)), *c)):
        by_strategy = {cell[2]: some for cell, some in by_cell.items() if cell[:2] == (name, level)}
        none = by_strategy["none"]
        versus = compared(
            {t: (some, none) for t, some in by_strategy.items() if t != "none"}, least
        )
        found = [
            _row(name, level, text, some, by_cell[(CLEAN, 0.0, text)], versus.get(text), least)
            for text, some in by_strategy.items()
        ]
        rows += sorted(found, key=lambda row: (-(row["accuracy"] or 0.0), row["strategy"]))
    return rows


def _row(
    name: str,
    level: float,
    text: str,
    runs: pd.DataFrame,
    clean: pd.DataFrame,
    versus: dict[str, Any] | None,
    least: float,
) -> dict[str, Any]:
    cell = summary(runs, least)
    lost = compared({text: (clean, runs)}, least)[text]
    nothing = name == CLEAN
    against = versus or {}
    return {
        "condition": SAID[name] if nothing else f"{SAID[name]} {level:g}",
        "disturbance": name,
        "level": level,
        "strategy": text,
        **cell,
        "clipped_text": percent(cell["clip_rate"], 0),
        "drop": None if nothing else lost["difference"],
        "drop_low": None if nothing else lost["low"],
        "drop_high": None if nothing else lost["high"],
        "drop_text": "–" if nothing else lost["text"].removeprefix("+"),
        "pairs": against.get("pairs", 0),
        "versus": against.get("difference"),
        "versus_low": against.get("low"),
        "versus_high": against.get("high"),
        "versus_text": against.get("text", "–"),
        **{
            each: against.get(each)
            for each in (
                *("both", "ours_only", "theirs_only"),
                *("p_trains", "difference_trained", "p_trained", "p"),
            )
        },
        "p_holm": against.get("p_holm"),
        "evidence": against.get("evidence", "baseline"),
    }


def _notes(runs: pd.DataFrame, rows: list[dict[str, Any]], lr: float) -> list[str]:
    seeds = runs["seed"].nunique()
    notes = [
        f"Accuracy on clean {runs['split'].iloc[0]} images in %: the mean over {seeds} "
        "seeds with a 95 % interval that holds where some do not train, too; drop: below the same "
        "strategy's clean runs; vs none: under the same "
        "condition. Both are paired by seed; a diverged run counts as chance.",
        TESTS.format(
            family="the strategies of one condition",
            rule=f"trained: {rule(rows[0]['trained_from'])}",
        ),
        "label noise: share of wrong training labels; gradient noise: Student's t (2 degrees of "
        "freedom) times it and each tensor's root mean square; spikes: chance of a step with "
        "gradients 1000 times too large.",
    ]
    notes += too_few(seeds, runs["strategy"].nunique() - 1)
    clean = {row["strategy"]: row for row in rows if row["disturbance"] == CLEAN}
    best = max((row["accuracy"] or 0.0 for row in clean.values()), default=0.0)
    none = clean.get("none", {}).get("accuracy")
    if none is not None and none < best / 2:
        notes.append(
            f"none does not train at lr {lr:g} even undisturbed ({percent(none)} %), so here the "
            "comparison with it says little about disturbances. At a tame learning rate it does: "
            "--lr (gclip study run lr_ceiling finds one)."
        )
    notes += _standing(runs)
    return notes


def _standing(runs: pd.DataFrame) -> list[str]:
    """Who loses least: the mean drop over all disturbed conditions, without a claim.

    Whoever does not train undisturbed has nothing to lose, and is left out.
    """
    means: Any = scored(runs).groupby(["strategy", "disturbance", "level"])["accuracy"].mean()
    clean = {text: float(mean) for (text, name, _), mean in means.items() if name == CLEAN}
    best = max(clean.values(), default=0.0)
    drops = {}
    for text, undisturbed in clean.items():
        own = means[text]
        disturbed = own[own.index.get_level_values("disturbance") != CLEAN]
        if undisturbed >= best / 2 and len(disturbed):
            drops[text] = undisturbed - float(disturbed.mean())
    if not drops:
        return []
    order = sorted(drops, key=lambda text: (drops[text], text))
    said = ", ".join(f"{text} {percent(drops[text])}" for text in order)
    return [f"Mean drop over all disturbed conditions, in points, smallest first: {said}."]
