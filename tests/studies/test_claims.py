"""Published claims: what is measured for one, and when which verdict is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gclip
from gclip.execution import Execution
from gclip.results import Store
from gclip.results.metrics import METRIC_COLUMNS, metric_cells
from gclip.studies import claims as study
from gclip.studies._published import FOLDER, Claim, claims, read
from gclip.training import task_defaults
from gclip.training.metric import ACCURACY
from gclip.training.tasks import problem_of
from gclip.tuning.study import Request

METRIC = {
    "metric": "accuracy",
    "better": "higher",
    "unit": "%",
    "worst": 0.1,
    "lowest": 0.0,
    "highest": 1.0,
    "decimals": 1,
}


ACCURACY_CELLS = {**metric_cells(ACCURACY), "worst": 0.1}


def claim(**changes: Any) -> Claim:
    given: dict[str, Any] = {
        "name": "it", "claim": "A beats B", "source": "nobody, 2026", "setting": "a toy.",
        "compares": "score", "expects": "better", "margin": 0.01, "arms": {"a": {}, "b": {}},
    }  # fmt: skip
    return Claim(**{**given, **changes})


def judged(of: Claim, **row: Any) -> str:
    found = {"p": 0.002, "low": 0.02, "high": 0.04, "direction": 1, **row}
    study.judge([found], (of,))
    return str(found["verdict"])


class TestVerdicts:
    def test_better(self) -> None:
        assert judged(claim()) == "supported here"
        assert judged(claim(), direction=-1, low=-0.04, high=-0.02) == "not supported here"
        assert judged(claim(), p=0.4, low=-0.02, high=0.03) == "cannot tell"
        # what would matter is ruled out, whatever the test says
        assert judged(claim(), p=0.4, low=-0.004, high=0.006) == "not supported here"
        assert judged(claim(), p=None) == "cannot tell"

    def test_not_better(self) -> None:
        other = claim(expects="not better")
        assert judged(other) == "not supported here"
        assert judged(other, p=0.4, low=-0.004, high=0.006) == "supported here"
        assert judged(other, p=0.4, low=-0.02, high=0.03) == "cannot tell"

    def test_equal(self) -> None:
        equal = claim(expects="equal")
        assert judged(equal, low=-0.009, high=0.009) == "supported here"
        assert judged(equal, low=0.011, high=0.03) == "not supported here"
        assert judged(equal, low=-0.005, high=0.02) == "cannot tell"

    def test_a_ceilings_margin_is_a_factor(self) -> None:
        higher = claim(compares="ceiling", expects="higher", margin=2, rates=(0.1, 0.2))
        assert judged(higher, p=0.4, low=-1.0, high=0.9) == "not supported here"
        assert judged(higher, p=0.4, low=-1.0, high=1.1) == "cannot tell"

    def test_all_claims_are_one_family(self) -> None:
        rows = [{"p": 0.03, "low": 0.0, "high": 0.04, "direction": 1} for _ in range(2)]
        study.judge(rows, (claim(), claim()))
        assert [row["p_holm"] for row in rows] == [0.06, 0.06]
        assert {row["verdict"] for row in rows} == {"cannot tell"}
        assert rows[0]["p_text"] == ".060"


def frame(arm: str, scores: list[float], rate: float = 0.1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"claim": "it", "arm": arm, "seed": seed, "rate": rate, "status": "finished",
             "score": score, "accuracy": score, "clip_rate": score / 2, "chance": 0.1, **METRIC}
            for seed, score in enumerate(scores)
        ]
    )  # fmt: skip


def test_scores_are_paired_by_seed() -> None:
    runs = pd.concat([frame("a", [0.9 + k / 100 for k in range(10)]), frame("b", [0.8] * 10)])
    row = study.row_of(claim(), runs)
    assert row["n"] == 10
    assert row["difference"] == pytest.approx(0.145)
    assert row["p"] == pytest.approx(2 / 2**10)
    assert row["direction"] == 1
    without = runs[(runs["arm"] == "a") | (runs["seed"] < 7)]
    assert study.row_of(claim(), without)["n"] == 7


def test_one_pair_says_nothing() -> None:
    runs = pd.concat([frame("a", [0.9]), frame("b", [0.8])])
    row = study.row_of(claim(), runs)
    study.judge([row], (claim(),))
    assert row["verdict"] == "cannot tell"


def test_ceilings_end_the_unbroken_stretch() -> None:
    rates = (0.1, 0.2, 0.4)
    scores = {0.1: [0.9, 0.1, 0.9], 0.2: [0.9, 0.9, 0.1], 0.4: [0.9, 0.9, 0.9]}
    runs = pd.concat([frame("a", scores[rate], rate) for rate in rates])
    of = claim(compares="ceiling", margin=2, rates=rates)
    assert study.ceilings(of, runs, least=0.5).tolist() == [0.4, 0.05, 0.1]
    without = runs[(runs["rate"] != 0.2) | (runs["seed"] != 0)]  # that run failed
    assert study.ceilings(of, without, least=0.5).tolist() == [0.1, 0.05, 0.1]
    other = pd.concat([frame("b", [0.9, 0.1, 0.1], rate) for rate in rates])
    row = study.row_of(of, pd.concat([runs, other]))
    assert row["difference"] == pytest.approx(np.mean([0.0, 0.0, 1.0]))
    assert row["difference_text"].startswith("×1.3 [")


def test_clip_rates() -> None:
    runs = pd.concat([frame("a", [0.9] * 10), frame("b", [0.5] * 10)])
    row = study.row_of(claim(compares="clip_rate", expects="higher"), runs)
    assert row["difference"] == pytest.approx(0.2)
    assert (row["ours_text"], row["theirs_text"]) == ("45.0 %", "25.0 %")


def test_the_claims_that_ship_can_be_tried() -> None:
    found = claims()
    assert len(found) >= 10
    for each in found:
        cells = each.configs((0,))
        assert len(cells) == 2 * max(1, len(each.rates))
        assert len({config.key for _, config in cells}) == len(cells)
        assert any(year in each.source for year in map(str, range(1986, 2027)))
        assert each.seeds >= 10


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('expects = "beter"', "unknown expects 'beter'; did you mean 'better'"),
        ("margin = 0", "margin must be above 0, but is 0"),
        ("rates = [0.1]", "rates are there for a ceiling, and only for one"),
        ('sources = "me"', "unknown key of a claim 'sources'; did you mean 'source'"),
        ("margin = ", "Invalid value"),
    ],
)
def test_a_file_that_is_no_claim_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    lines = (FOLDER / "value-beside-norm.toml").read_text().splitlines()
    key = line.partition(" ")[0]
    kept = [each for each in lines if not each.startswith(f"{key} ")]
    (tmp_path / "mine.toml").write_text("\n".join([line, *kept]))
    with pytest.raises(gclip.UsageError, match=rf"mine\.toml is no claim.*{sentence}"):
        read(tmp_path / "mine.toml")


def request(folder: Path, **changes: Any) -> Request:
    given: dict[str, Any] = {"base": task_defaults("digits"), "seeds": (0, 1)}
    execution = Execution(workers=1, device="cpu")
    return Request(store=Store(folder, create=True), execution=execution, **{**given, **changes})


def test_it_runs_and_reads_what_it_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"fraction": 0.1, "epochs": 1, "batch_size": 64}
    two = tuple(
        claim(name=name, run=small, arms={"a": {"strategy": "norm"}, "b": {"strategy": "none"}})
        for name in ("first", "second")
    )
    monkeypatch.setattr(study, "claims", lambda: two)
    answer = study.run(request(tmp_path))
    assert [row["name"] for row in answer.rows] == ["first", "second"]
    assert {row["n"] for row in answer.rows} == {2}
    assert {row["verdict"] for row in answer.rows} == {"cannot tell"}
    assert len(Store(tmp_path).keys()) == 4  # both claims are about the same runs
    assert "nobody, 2026" in answer.notes[0]


def test_settings_of_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(gclip.UsageError, match="leave out -s"):
        study.cells_of(request(tmp_path, strategies=("norm",)))
    with pytest.raises(gclip.UsageError, match="leave out the options of runs"):
        study.cells_of(request(tmp_path, base=task_defaults("digits").replace(lr=0.3)))


def test_the_pages_table_is_the_records() -> None:
    root = Path(__file__).parents[2]
    runs = pd.read_csv(root / "studies" / "records" / "claims.csv").assign(chance=0.1)
    runs["rate"], runs["accuracy"] = runs["lr"], runs["score"]
    of_tasks = {
        task: {**metric_cells(problem_of(task).metric), "worst": problem_of(task).metric.worst}
        for task in ("adding",)
    }
    for name in METRIC_COLUMNS:
        runs[name] = [
            of_tasks[t][name] if t in of_tasks else ACCURACY_CELLS[name] for t in runs["task"]
        ]
    found = claims()
    rows = [study.row_of(each, runs[runs["claim"] == each.name]) for each in found]
    study.judge(rows, found)
    page = (root / "docs" / "claims.md").read_text()
    for each, row in zip(found, rows, strict=True):
        assert row["n"] == each.seeds
        cells = (row["ours_text"], row["theirs_text"], row["difference_text"], row["p_text"])
        line = f"| [{each.name}](#{each.name}) | {' | '.join(cells)} | {row['verdict']} |"
        assert line in page, line
        assert set(runs[runs["claim"] == each.name]["key"]) == {
            config.key for _, config in each.configs(tuple(range(each.seeds)))
        }
