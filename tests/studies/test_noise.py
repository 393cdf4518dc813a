"""The study of disturbances: paired drops by hand, and once for real."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.execution import Event
from gclip.results.statistics import holm, sign_flip, t_interval
from gclip.studies import noise
from gclip.studies.noise import conditions_of, table
from tests.studies.synthetic import TINY, asked, frame, run


def test_levels_rise_to_the_top() -> None:
    assert conditions_of(2) == [
        ("clean", 0.0),
        *(("label_noise", 0.2), ("label_noise", 0.4)),
        *(("gradient_noise", 0.25), ("gradient_noise", 1.0)),
        *(("spikes", 0.01), ("spikes", 0.1)),
    ]
    assert len(conditions_of(1)) == 4


def test_the_rows_by_hand() -> None:
    random = np.random.default_rng(0)
    scores = {
        (text, name, level): random.uniform(0.5 + place / 10, 0.6 + place / 10, 10)
        for place, text in enumerate(("none", "norm", "agc"))
        for name, level in (("clean", 0.0), ("spikes", 0.1))
    }
    runs = frame(
        *(
            run(text, seed, value, disturbance=name, level=level)
            for (text, name, level), values in scores.items()
            for seed, value in enumerate(values)
        )
    )
    rows = table(runs)
    assert [(row["condition"], row["strategy"]) for row in rows] == [
        *(("clean", "agc"), ("clean", "norm"), ("clean", "none")),
        *(("spikes 0.1", "agc"), ("spikes 0.1", "norm"), ("spikes 0.1", "none")),
    ]
    noisy = {row["strategy"]: row for row in rows if row["disturbance"] == "spikes"}
    p = []
    for text in ("norm", "agc"):
        ours = scores[text, "spikes", 0.1]
        drop = t_interval(scores[text, "clean", 0.0] - ours)
        versus = ours - scores["none", "spikes", 0.1]
        row = noisy[text]
        assert (row["drop"], row["drop_low"], row["drop_high"]) == pytest.approx(drop)
        assert row["versus"] == pytest.approx(float(versus.mean()))
        p.append(sign_flip(versus))
    assert [noisy["norm"]["p_holm"], noisy["agc"]["p_holm"]] == pytest.approx(holm(p))
    assert noisy["agc"]["evidence"] == "better"
    assert noisy["none"]["evidence"] == "baseline"
    assert rows[0]["drop"] is None
    json.dumps(rows, allow_nan=False)


def test_a_seed_that_failed_leaves_its_pair_out() -> None:
    runs = frame(
        *(run("none", seed, 0.5, disturbance="clean", level=0.0) for seed in range(10)),
        *(run("agc", seed, 0.9, disturbance="clean", level=0.0) for seed in range(9)),
        run("agc", 9, math.nan, "failed", disturbance="clean", level=0.0),
    )
    agc, none = table(runs)
    assert (agc["pairs"], agc["n"], agc["failed"]) == (9, 9, 1)
    assert agc["evidence"] == "too few seeds to tell"
    assert none["n"] == 10


def test_whoever_cannot_train_has_nothing_to_lose() -> None:
    runs = frame(
        *(run(text, seed, value, disturbance=name, level=level)
          for text, clean, noisy in (("none", 0.1, 0.1), ("agc", 0.9, 0.8), ("norm", 0.9, 0.6))
          for name, level, value in (("clean", 0.0, clean), ("spikes", 0.1, noisy))
          for seed in range(10))
    )  # fmt: skip
    notes = noise._notes(runs, table(runs), 0.15)
    [standing] = [note for note in notes if "Mean drop" in note]
    assert standing.endswith("smallest first: agc 10.0, norm 30.0.")
    assert any("none does not train at lr 0.15 even undisturbed (10.0 %)" in n for n in notes)
    few = runs[runs["seed"] < 3]
    assert any("no difference can be shown" in n for n in noise._notes(few, table(few), 0.15))


def test_the_same_disturbances_for_all(tmp_path: Path) -> None:
    events: list[Event] = []
    request = asked(tmp_path, "norm", points=1, seeds=(0,), listener=events.append)
    answer = noise.run(request)
    trained = [event.config for event in events if event.kind == "done"]
    assert len(trained) == noise.run_count(request) == 2 * 4
    assert {(c.label_noise, c.gradient_noise, c.spikes) for c in trained} == {
        *((0.0, 0.0, 0.0), (0.4, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.1)),
    }
    assert {config.split for config in trained} == {"test"}
    events.clear()
    assert list(noise.run(request).rows) == list(answer.rows)
    assert {event.kind for event in events} == {"cached"}
    assert set(answer.columns.values()) <= set(answer.rows[0])
    [draw] = answer.figures.values()
    assert "gradient noise 1" in figures.save(draw(), tmp_path / "noise.svg").read_text()


def test_clean_must_be_clean(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="varies spikes; leave --spikes out"):
        noise.run(asked(tmp_path, "norm", base=TINY.replace(spikes=0.1)))
