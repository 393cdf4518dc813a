"""``gclip study``: begun, resumed, listed, from a file, and refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


def test_a_study_runs_resumes_and_is_listed(gclip: Command, tmp_path: Path) -> None:
    command = ("study", "run", "thresholds", "-s", "agc", *TINY, "--workers", "1")
    first = gclip(*command, "--trials", "2")
    assert first.code == 0
    assert "study thresholds-agc-digits: 2 trials" in first.out
    assert "% validation accuracy" in first.out
    assert '  gclip train -s "agc(clip_factor=' in first.out
    assert "gclip.Clipper(model" in first.out
    assert "looks better than it is" in first.out
    assert "gclip compare -s none -s" in first.out
    [use] = [line for line in first.out.splitlines() if line.startswith("  gclip train")]
    assert "--fraction 0.1 --batch-size 64 --epochs 1 --lr 0." in use
    # The same command again: the same, and no run more.
    runs = len(list((tmp_path / "runs").glob("*/config.json")))
    assert runs == 2
    assert gclip(*command, "--trials", "2").out == first.out
    assert len(list((tmp_path / "runs").glob("*/config.json"))) == 2
    # A larger total: only what is missing.
    more = gclip(*command, "--trials", "3", "--json").json
    assert more["study"] == "thresholds"
    [found] = more["studies"]
    assert found["trials"] == more["rows"][0]["trials"] == 3
    assert found["best"]["split"] == "validation"
    assert found["best"]["seed"] == 1000
    assert len(list((tmp_path / "runs").glob("*/config.json"))) == 3
    # Under other settings it is another study.
    other = gclip(*command, "--trials", "3", "--momentum", "0.5")
    assert other.code == 2
    assert "begun with momentum 0.9, not momentum 0.5" in other.err
    listed = gclip("study", "list")
    assert re.search(r"^thresholds +How large should the limit be\?", listed.out, re.M)
    assert "thresholds-agc-digits" in listed.out
    assert gclip("study", "list", "--json").json["begun"][0]["trials"] == 3


def test_what_a_study_prints_can_be_typed(gclip: Command, tmp_path: Path) -> None:
    done = gclip(
        *("study", "run", "thresholds", "-s", "none", "--trials", "1", "--workers", "1", *TINY),
        *("--optimizer", "adam", "--augment", "--schedule", "cosine", "--weight-decay", "1e-4"),
    )
    [use] = [line for line in done.out.splitlines() if line.startswith("  gclip train")]
    for option in ("--optimizer adam", "--augment", "--schedule cosine", "--weight-decay 0.0001"):
        assert option in use
    assert "--momentum" not in use
    [compare] = [line for line in done.out.splitlines() if line.startswith("  gclip compare")]
    assert compare.startswith("  gclip compare -s none --fraction")
    # The run as the trial was, but on the test images.
    again = gclip(*use.replace('"', "").split()[1:], "--device", "cpu", "--json").json
    [stored] = done_configs(tmp_path, split="validation")
    [tested] = done_configs(tmp_path, split="test")
    assert {k: v for k, v in stored.items() if stored[k] != tested[k]} == {
        "seed": 1000,
        "split": "validation",
    }
    assert again


def done_configs(path: Path, *, split: str) -> list[dict[str, Any]]:
    import json

    found = [json.loads(file.read_text()) for file in (path / "runs").glob("*/config.json")]
    return [config for config in found if config["split"] == split]


def test_a_study_comes_from_a_file_and_options_go_before_it(gclip: Command, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        """
        study = "thresholds"
        name = "mine"
        strategies = ["norm", "agc"]
        trials = 9
        sampler = "random"
        fixed_lr = true
        workers = 1

        [space]
        norm.max_norm = "0.5..2"
        clip_factor = [0.1, 0.2]
        scope = "tensor"

        [run]
        fraction = 0.1
        epochs = 1
        batch_size = 32
        lr = 0.05
        nonfinite = "keep"
        """
    )
    done = gclip(
        *("study", "run", "--file", "study.toml", "--trials", "2", "--batch-size", "64"),
        *("-s", "norm", "--lr-range", "0.01,0.02", "--device", "cpu", "--json"),
    )
    assert (done.code, done.err.count("error")) == (2, 1)
    assert "'clip_factor', but norm has no such field" in done.err
    done = gclip(
        *("study", "run", "--file", "study.toml", "--trials", "2", "--batch-size", "64"),
        *("--lr-range", "0.01,0.02", "--space", "clip_factor=0.3|0.4", "--device", "cpu", "--json"),
    )
    assert done.code == 0
    norm, agc = done.json["studies"]
    assert (norm["study"], agc["study"]) == ("mine-norm", "mine-agc")
    assert norm["space"] == {"max_norm": "0.5..2:log", "lr": "0.01..0.02:log"}
    assert agc["space"] == {"clip_factor": "0.3|0.4", "lr": "0.01..0.02:log"}
    assert (norm["trials"], norm["sampler"]) == (2, "random")
    best = norm["best"]
    assert (best["batch_size"], best["epochs"], best["nonfinite"]) == (64, 1, "keep")
    assert best["strategy"].endswith("scope=tensor)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trials = [", "is not TOML"),
        ("trails = 3", "unknown setting in the study file 'study.toml': 'trails'; did you mean"),
        ("trials = 2.5", "trials must be a whole number, but got 2.5"),
        ("trials = true", "trials must be a whole number, but got True"),
        ("strategies = 'norm'", 'strategies must be a list such as ["norm", "agc"]'),
        ("lr_range = [1]", "lr_range must be two numbers"),
        ("seeds = 0", "seeds must be a count such as 10"),
        ("space = 1", "space is a table, [space], and not a value"),
        ("[run]\nepoch = 3", "'epoch'; did you mean 'epochs'?"),
        ("[run]\nseed = 3", "unknown setting under [run]"),
        ("[run]\nepochs = 'few'", "epochs"),
        ("[run]\nrecipe = 'tutoral'", "did you mean 'tutorial'?"),
        ("[space]\nmax_norm = []", "max_norm under [space] must be a range"),
        ("[space]\nmax_norm = '2..1'", "low < high must hold"),
        ("points = 3", "points belong to the sampler grid"),
        ("seeds = 3", "the study thresholds does not use --seeds; leave it out (studies that do: "),
    ],
)
def test_a_wrong_file_is_one_sentence(gclip: Command, tmp_path: Path, text: str, said: str) -> None:
    head = 'study = "thresholds"\n' + ("" if "strategies" in text else 'strategies = ["norm"]\n')
    (tmp_path / "study.toml").write_text(head + text)
    refused(gclip("study", "run", "--file", "study.toml"), said, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which study?"),
        (["--file", "none.toml"], "'none.toml' cannot be read: No such file"),
        (["thresholds", "-s", "norm", "--seeds", "3"], "does not use --seeds"),
        (["overhead", "--trials", "3"], "the study overhead does not use --trials; leave it out"),
        (["thresholds", "-s", "norm", "--space", "max_norm"], "--space takes FIELD=RANGE"),
        (["thresholds", "-s", "norm", "--space", "max_nrom=1..2"], "did you mean 'max_norm'?"),
        (["thresholds", "-s", "norm", "--space", "max_norm=2..1"], "low < high must hold"),
        (["thresholds", "-s", "norm", "--pruner", "medain"], "did you mean 'median'?"),
        (["thresholds", "-s", "norm", "--pruner", "wilcoxon"], "at least 5 seeds per trial"),
        (["thresholds", "-s", "norm", "--objective", "acuracy"], "did you mean 'accuracy'?"),
        (["thresholds", "-s", "norm", "--objective", "cost"], "accuracy must be among"),
        (["thresholds", "-s", "norm", "--points", "3"], "points belong to the sampler grid"),
        (["thresholds", "-s", "norm", "--name", "a/b"], "a study's name"),
        (["thresholds", "-s", "norm", "--fixed-lr", "--lr-range", "0.1,1"], "not both"),
        (
            ["thresholds", "-s", "norm", "--sampler", "grid", "--points", "2", "--trials", "5"],
            "the grid of norm has 4 points, but 5 trials",
        ),
    ],
)
def test_wrong_options_are_one_sentence(
    gclip: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    refused(gclip("study", "run", *arguments), said, tmp_path)


def refused(answer: Any, said: str, path: Path) -> None:
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not list(path.rglob("*.db")), "a study was begun"
    assert not list(path.rglob("config.json")), "something was trained"


def test_listing_creates_nothing(gclip: Command, tmp_path: Path) -> None:
    answer = gclip("study", "list", "--store", "nowhere")
    assert answer.code == 0
    assert "None was begun in nowhere." in answer.out
    assert list(tmp_path.iterdir()) == []


def test_answers_without_trials_are_listed(gclip: Command, tmp_path: Path) -> None:
    assert "None was begun in runs." in gclip("study", "list").out
    noisy = ("study", "run", "noise", "-s", "norm", *TINY, "--seeds", "1", "--points", "1",
             "--workers", "1")  # fmt: skip
    assert gclip(*noisy).code == 0
    assert gclip(*noisy).code == 0  # the same question again is the same answer
    assert gclip(*noisy[:-6], "--seeds", "2", "--points", "1", "--workers", "1").code == 0
    shown = gclip("study", "list", "--json").json
    assert [each["study"] for each in shown["answered"]] == ["noise", "noise"]
    assert shown["answered"][0]["strategies"] == ["none", "norm"] or set(
        shown["answered"][0]["strategies"]
    ) == {"none", "norm"}
    assert shown["answered"][0]["rows"] == 8  # clean and three disturbances, two strategies
    text = gclip("study", "list").out
    assert "Answered in runs" in text
    assert "norm" in text
    assert "None was begun" not in text
    [broken, _] = sorted((tmp_path / "runs" / "studies" / "answers").iterdir())
    broken.write_text("{")
    answer = gclip("study", "list", "--json")
    assert len(answer.json["answered"]) == 1
    assert "is no answer of a study" in answer.err


def test_noise_is_added_to_a_setting_in_which_none_trains(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gclip.studies import noise

    def rate(*options: str) -> float:
        with pytest.raises(Asked) as caught:
            gclip("study", "run", "noise", *options)
        return float(caught.value.args[0])

    class Asked(BaseException):  # which the command does not turn into a message
        pass

    def stop(request: Any) -> Any:
        raise Asked(request.base.lr)

    monkeypatch.setattr(noise, "run_count", stop)
    assert rate() == 0.02
    assert rate("--lr", "0.3") == 0.3
    assert rate("--optimizer", "adam") == 1e-3
