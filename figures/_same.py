"""Which strategies' lines lie on each other? They are named together: no curve is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.results.metrics import with_scores

if TYPE_CHECKING:
    from gclip.results import Results


def coinciding(results: Results) -> list[tuple[str, ...]]:
    """Groups of strategies whose runs score and lose the same, to the last bit, seed by seed."""
    groups: dict[tuple[tuple[object, ...], ...], list[str]] = {}
    runs, curves = with_scores(results.runs), results.curves
    for strategy in results.strategies:
        own = runs[runs["strategy"] == strategy].sort_values("seed")
        rows = [tuple(row) for row in own[["seed", "status", "score"]].to_numpy()]
        if len(curves):
            mine = curves[curves["key"].isin(own["key"])].sort_values(["seed", "epoch"])
            # NaN is never equal to itself, and a curve that has one is the same all the same.
            told = mine[["seed", "epoch", "train_loss", "score"]].astype(str)
            rows += [tuple(row) for row in told.to_numpy()]
        groups.setdefault(tuple(rows), []).append(strategy)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def together(results: Results) -> str:
    """The sentence that names them; empty where none coincide."""
    found = coinciding(results)
    if not found:
        return ""
    said = "; ".join(" and ".join((", ".join(group[:-1]), group[-1])) for group in found)
    return f"The same runs, and so on top of each other: {said}."
