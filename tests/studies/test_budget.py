"""The study of budgets: curves against brute force, claims against hand-made runs, one for real."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.execution import Event
from gclip.results.budget import BAND, best_of_k_quantile, budget_curve
from gclip.results.statistics import holm, sign_flip
from gclip.studies import budget
from gclip.studies._budget_notes import worth
from gclip.studies._pairs import compared, too_few
from gclip.studies.budget import TrialResults, table
from gclip.training import RunConfig
from gclip.tuning.sqlite import studies_in
from tests.studies.synthetic import TINY, asked, frame, run

SCORES = (0.1, 0.9, 0.4, 0.4, 0.95, 0.1, 0.7)


def test_the_curve_is_that_of_all_choices_of_trials() -> None:
    found = budget_curve(SCORES)
    for k in range(1, len(SCORES) + 1):
        best = np.sort([max(chosen) for chosen in itertools.combinations(SCORES, k)])
        assert found.mean[k - 1] == pytest.approx(best.mean())
        for share, ours in zip(BAND, (found.low, found.high), strict=True):
            # The smallest score that at least this share of the choices does not exceed.
            brute = next(v for v in best if (best <= v).mean() >= share)
            assert ours[k - 1] == brute
    assert found.mean[-1] == found.low[-1] == found.high[-1] == 0.95
    assert (found.low <= found.mean).all()
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_the_curve_of_many_trials_stays_exact() -> None:
    scores = np.random.default_rng(0).random(300)
    median = best_of_k_quantile(scores, 0.5)
    assert (np.diff(median) >= 0).all()
    assert median[0] == np.sort(scores)[149]
    assert budget_curve([0.3]).mean.tolist() == [0.3]


def _tuned(strategy: str, scores: tuple[float, ...] = SCORES, trials: int = 7) -> TrialResults:
    best = RunConfig(lr=0.02).replace(strategy=strategy)
    return TrialResults(study="x", trials=trials, diverged=2, scores=scores, best=best)


def _fresh(strategy: str, scores: list[float]) -> list[object]:
    return [run(strategy, seed, value) for seed, value in enumerate(scores)]


def test_claims_are_paired_and_corrected_over_the_whole_table() -> None:
    random = np.random.default_rng(1)
    none = random.normal(0.8, 0.05, 12)
    scores = {
        "none": none,
        "norm": none + random.normal(0.05, 0.01, 12),
        "agc": none + random.normal(0.0, 0.05, 12),
        "soft": none - random.normal(0.1, 0.01, 12),
    }
    runs = frame(*(each for text, s in scores.items() for each in _fresh(text, list(s))))
    rows = {row["strategy"]: row for row in table({text: _tuned(text) for text in scores}, runs)}
    assert list(rows) == sorted(rows, key=lambda text: -float(np.mean(scores[text])))
    pairs = [("norm", "none"), ("agc", "none"), ("agc", "norm"), ("soft", "none"), ("soft", "norm")]
    p = [sign_flip(scores[ours] - scores[theirs]) for ours, theirs in pairs]
    for (ours, theirs), plain, corrected in zip(pairs, p, holm(p), strict=True):
        assert rows[ours][f"{theirs}_difference"] == pytest.approx(
            float(np.mean(scores[ours] - scores[theirs]))
        )
        assert rows[ours][f"{theirs}_p"] == pytest.approx(plain)
        assert rows[ours][f"{theirs}_p_holm"] == pytest.approx(corrected)
    evidence = {text: row["none_evidence"] for text, row in rows.items()}
    assert evidence == {
        "norm": "better", "none": "baseline", "agc": "no difference shown", "soft": "worse",
    }  # fmt: skip
    assert rows["norm"]["norm_evidence"] == "baseline"
    assert rows["none"]["norm_difference"] is None, "each pair is compared once"
    assert rows["agc"]["best_of_few"] == pytest.approx(budget_curve(SCORES).mean[3])
    assert rows["agc"]["best_of_all"] == 0.95
    said = worth(list(rows.values()))
    assert [sentence.partition(":")[0] for sentence in said] == [
        "Worth its tuning here",
        "Not worth it here",
        "No difference to tuned none shown (which is no proof that there is none)",
        "Not worth it here",
    ]
    assert "norm (+5" in said[0]
    assert worth([rows["agc"], rows["none"]])[0] == (
        "No strategy is shown to be worth its tuning here."
    )
    assert "agc" in said[2]
    json.dumps(list(rows.values()), allow_nan=False)


def test_few_seeds_support_no_claim() -> None:
    runs = frame(*_fresh("none", [0.1] * 9), *_fresh("agc", [0.9] * 9))
    [agc, none] = table({"none": _tuned("none"), "agc": _tuned("agc")}, runs)
    assert agc["none_evidence"] == "too few seeds to tell"
    assert "norm" not in json.dumps(budget.columns([agc, none], 7, "test"))
    assert worth([agc, none]) == ["Too few seeds to tell from tuned none: agc."]
    assert too_few(10, 25) == too_few(11, 51) == too_few(3, 0) == []
    assert too_few(9, 1)[0].endswith("too few seeds to tell. With 10 it can: --seeds 10.")
    assert "With 10 seeds and 26 comparisons no difference can be shown" in too_few(10, 26)[0]
    assert too_few(10, 26)[0].endswith("With 11 it can: --seeds 11.")


def test_a_strategy_whose_trials_all_failed_has_a_row_and_no_claim() -> None:
    lost = TrialResults(study="x", trials=7, diverged=0, scores=(), best=None)
    runs = frame(*_fresh("none", [0.5] * 10))
    rows = {row["strategy"]: row for row in table({"none": _tuned("none"), "agc": lost}, runs)}
    assert rows["agc"]["trials_failed"] == 7
    assert rows["agc"]["none_evidence"] is None
    assert (rows["agc"]["n"], rows["agc"]["tuned"]) == (0, None)
    json.dumps(list(rows.values()), allow_nan=False)


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    ours = frame(run("agc", 0, 0.9), run("agc", 1, 0.8), run("agc", 2, math.nan, "failed"))
    theirs = frame(run("none", 1, 0.5), run("none", 2, 0.4), run("none", 0, 0.7))
    found = compared({"agc": (ours, theirs)}, 0.3)["agc"]
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx((0.2 + 0.3) / 2)
    assert found["evidence"] == "too few seeds to tell"


def test_equal_budgets_then_fresh_seeds(tmp_path: Path) -> None:
    events: list[Event] = []
    request = asked(
        tmp_path, "agc(eps=0.5)", trials=3, seeds=(0, 1), lr_range=(0.01, 0.2),
        space={"clip_factor": "0.1..0.5"}, listener=events.append,
    )  # fmt: skip
    answer = budget.run(request)
    trained = [event.config for event in events if event.kind == "done"]
    tuning = [config for config in trained if config.split == "validation"]
    reported = [config for config in trained if config.split == "test"]
    assert len(trained) == budget.run_count(request) == 2 * (3 + 2)
    assert len(tuning) == 6
    assert {config.seed for config in tuning} == {1000}
    assert {config.seed for config in reported} == {0, 1}
    assert all(0.01 <= config.lr <= 0.2 for config in tuning)
    rates = [[c.lr for c in tuning if c.strategy.startswith(text)] for text in ("none", "agc")]
    assert rates[0] == rates[1], "all try the same learning rates"
    assert len(set(rates[0])) == 3
    assert set(studies_in(tmp_path)) == set(answer.more["studies"].values())
    assert set(answer.more["studies"]) == {"none", "agc(eps=0.5)"}
    for row in answer.rows:
        assert (row["trials"], row["n"]) == (3, 2)
        [winner] = {(c.strategy, c.lr) for c in reported if c.strategy == row["tuned"]}
        assert winner[1] == row["lr"]
    events.clear()
    assert list(budget.run(request).rows) == list(answer.rows)
    assert {event.kind for event in events} == {"cached"}
    # Fewer trials than there are: the first ones are what that budget would have been.
    import dataclasses

    fewer = budget.run(dataclasses.replace(request, trials=2))
    assert [row["trials"] for row in fewer.rows] == [2, 2]
    assert fewer.more["curves"]["none"]["mean"][-1] <= answer.more["curves"]["none"]["mean"][-1]
    assert set(answer.figures) == {"budget", "budget_final"}
    for name, draw in answer.figures.items():
        assert "none" in figures.save(draw(), tmp_path / f"{name}.svg").read_text()
    assert set(answer.columns.values()) <= set(answer.rows[0])


def test_what_is_wrong_is_known_before_any_trial(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trials must be a whole number from 1 to 1,000,000"):
        budget.run(asked(tmp_path, "agc", trials=0))
    with pytest.raises(UsageError, match="no such field"):
        budget.run(asked(tmp_path, "agc", space={"max_nom": "1..2"}))
    with pytest.raises(UsageError, match="what this study searches"):
        budget.run(asked(tmp_path, "agc(clip_factor=0.5)", base=TINY))
    assert not (tmp_path / "studies").exists()
