"""A config is a run's identity: complete, canonical, and refused when it is wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gclip.errors import UsageError
from gclip.training import RunConfig, load_dataset, recipes, task_defaults

# A digest of the strategy's code, so that editing a strategy does not change these tests.
FIXED = {"code": "0123456789ab"}

CHANGES = {
    "task": "cifar10",
    "data": "00ff",
    "fraction": 0.5,
    "split": "validation",
    "selection": 0,
    "model": "resnet9",
    "model_code": "0123456789ab",
    "dropout": 0.1,
    "optimizer": "adam",
    "lr": 0.25,
    "momentum": 0.8,
    "weight_decay": 0.1,
    "optimizer_settings": {"nesterov": True},
    "schedule": "cosine",
    "batch_size": 33,
    "accumulate": 2,
    "epochs": 6,
    "precision": "bf16",
    "augment": True,
    "normalize": "half",
    "strategy": "norm",
    "code": "ba9876543210",
    "stepping": 0,
    "nonfinite": "keep",
    "label_noise": 0.1,
    "gradient_noise": 0.1,
    "spikes": 0.1,
    "problem_code": "0123456789ab",
    "watch": "layer",
    "seed": 1,
}


def test_the_key_is_for_ever():
    assert RunConfig(**FIXED).key == (
        "f6b516b6d5527bd9b17c55bdaa87fb49aeb42f436cd0a586431d81a08158a6c7"
    )
    assert RunConfig(**FIXED).to_json() == (
        '{"accumulate":1,"augment":false,"batch_size":32,"code":"0123456789ab","data":"",'
        '"epochs":5,"fraction":1.0,"lr":0.15,"model":"lenet","momentum":0.9,"nonfinite":"skip",'
        '"normalize":"standard","optimizer":"sgd","optimizer_settings":{},"precision":"fp32",'
        '"schedule":"constant","seed":0,"split":"test","strategy":"none","task":"digits",'
        '"weight_decay":0.0}'
    )


def test_every_field_is_part_of_the_key():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(RunConfig)}
    keys = {RunConfig(**(FIXED | {name: value})).key for name, value in CHANGES.items()}
    # In the default these have no say, so their changes are looked at where they have one.
    keys.add(RunConfig(**FIXED, split="validation", selection=0).key)
    keys.add(RunConfig(**FIXED, strategy="sigma_skip", stepping=0).key)
    assert len(keys | {RunConfig(**FIXED).key}) == len(CHANGES) + 1


def test_json_round_trip():
    config = RunConfig(
        optimizer="adam", optimizer_settings={"eps": 1e-7, "betas": [0.8, 0.9]}, strategy="agc"
    )
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert again.key == config.key
    assert hash(again) == hash(config)
    assert config.settings == {"betas": (0.8, 0.9), "eps": 1e-7}
    assert json.loads(config.to_json())["momentum"] is None


def test_two_ways_of_asking_are_one_run():
    plain = RunConfig(strategy="norm")
    assert RunConfig(strategy="norm(max_norm=1)", lr=0.15, momentum=0.9).key == plain.key
    assert RunConfig(strategy="norm", fraction=1, weight_decay=0).key == plain.key
    first = RunConfig(optimizer="adam", optimizer_settings={"eps": 1e-7, "amsgrad": True})
    second = RunConfig(optimizer="adam", optimizer_settings=(("amsgrad", True), ("eps", 1e-7)))
    assert first == second


def test_each_optimizer_brings_its_own_rate_and_momentum():
    assert (RunConfig().lr, RunConfig().momentum) == (0.15, 0.9)
    assert (RunConfig(optimizer="rmsprop").lr, RunConfig(optimizer="rmsprop").momentum) == (1e-3, 0)
    adam = RunConfig(lr=0.4, optimizer_settings={"nesterov": True}).replace(optimizer="adam")
    assert (adam.lr, adam.momentum, adam.settings) == (1e-3, None, {})
    assert RunConfig().replace(optimizer="adam", lr=0.2).lr == 0.2


def test_replace_keeps_what_it_may_and_renews_what_it_must():
    config = RunConfig(strategy="norm", lr=0.4)
    assert config.replace(seed=5) == RunConfig(strategy="norm", lr=0.4, seed=5)
    assert config.replace(strategy="agc") == RunConfig(strategy="agc", lr=0.4)
    assert config.replace(optimizer="sgd").lr == 0.4
    with pytest.raises(UsageError, match=r"unknown field of RunConfig 'epoch'.*'epochs'"):
        config.replace(epoch=3)


def test_a_stored_config_reads_without_its_plugin():
    config = RunConfig(strategy="not_registered(x=1)", code="0123456789ab")
    assert config.label == "not_registered(x=1)"
    with pytest.raises(UsageError, match="unknown strategy 'not_registered'"):
        config.replace(code="")


def test_the_data_is_part_of_it(class_folders, digits):
    images = load_dataset("cifar10", class_folders)
    config = RunConfig(task="cifar10").with_data(images)
    assert config.data == images.digest[:16]
    assert RunConfig().with_data(digits).data == ""
    assert config.replace(task="digits").data == ""


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "cifar"}, r"unknown task 'cifar'; did you mean 'cifar10'\? \(.*digits"),
        ({"model": "lenett"}, "unknown model 'lenett'; did you mean 'lenet'"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"schedule": "linear"}, r"unknown schedule 'linear' \(choices: constant"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"normalize": "no"}, r"unknown normalize 'no' \(choices: standard, half\)"),
        ({"split": "train"}, r"unknown split 'train' \(choices: test, validation\)"),
        ({"nonfinite": "zero"}, "unknown nonfinite 'zero'"),
        ({"strategy": "nrm"}, "unknown strategy 'nrm'; did you mean 'norm'"),
        ({"fraction": 0}, r"fraction must be in \(0, 1\], but got 0"),
        ({"fraction": True}, r"fraction must be a number in \(0, 1\], but got True"),
        ({"lr": -1.0}, r"lr must be > 0, but got -1\.0"),
        ({"lr": float("nan")}, "lr must be > 0, but got nan"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), but got 1"),
        (
            {"optimizer": "adam", "momentum": 0.9},
            "momentum belongs to the optimizers sgd, rmsprop, muon",
        ),
        ({"weight_decay": "x"}, "weight_decay must be a number ≥ 0, but got 'x'"),
        ({"batch_size": 0}, "batch_size must be a whole number ≥ 1, but got 0"),
        ({"batch_size": 3.5}, "batch_size must be a whole number ≥ 1"),
        ({"epochs": True}, "epochs must be a whole number ≥ 1, but got True"),
        ({"accumulate": 0}, "accumulate must be a whole number ≥ 1"),
        ({"seed": -1}, "seed must be a whole number ≥ 0, but got -1"),
        ({"augment": 1}, "augment must be true or false, but got 1"),
        ({"optimizer_settings": {"eps": 1}}, "unknown setting 'eps' of optimizer sgd"),
        ({"optimizer_settings": {"nesterov": object()}}, "optimizer_settings must map names"),
    ],
)
def test_what_is_wrong_is_said(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        RunConfig(**wrong)


def test_all_mistakes_in_one_sentence():
    with pytest.raises(UsageError) as caught:
        RunConfig(model="vgg", epochs=0, lr=0, strategy="nrm")
    for part in ("model 'vgg'", "epochs must be", "lr must be", "strategy 'nrm'"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_json_is_a_usage_error():
    deep = "[" * 100_000
    for text in ("{", "[1]", '{"modle": "lenet"}', deep, '{"optimizer_settings": ' + deep):
        with pytest.raises(UsageError):
            RunConfig.from_json(text)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model_code": []}, "model_code must be text, but got"),
        ({"task": "gan-digits", "model": []}, "takes no model, but got"),
        ({"task": "gan-digits", "dropout": ""}, "takes no dropout, but got"),
        ({"lr": "1" * 10_000}, "lr must be"),
        ({"optimizer_settings": {"eps": "1" * 10_000}}, "eps"),
    ],
)
def test_values_of_other_kinds_are_told_in_few_letters(wrong, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        RunConfig(**wrong)
    assert len(str(caught.value)) < 500


def test_task_defaults():
    assert task_defaults("digits") == RunConfig()
    cifar = task_defaults("cifar10")
    assert (cifar.optimizer, cifar.lr, cifar.batch_size) == ("adam", 1e-3, 128)
    assert (cifar.epochs, cifar.augment) == (10, True)
    with pytest.raises(UsageError, match="unknown task"):
        task_defaults("mnist")


def test_the_tutorials_recipe():
    recipe = recipes["tutorial"]
    assert (recipe.task, recipe.model, recipe.optimizer, recipe.lr) == (
        "cifar10", "lenet", "adam", 1e-3
    )  # fmt: skip
    assert (recipe.batch_size, recipe.epochs, recipe.normalize) == (4, 10, "half")
    assert recipe.replace(strategy="value(clip_value=1)") == recipe
    assert (recipe.augment, recipe.schedule) == (False, "constant")
    assert list(recipes) == ["tutorial"]
    assert "tutorail" not in recipes
    with pytest.raises(UsageError, match=r"unknown recipe 'tutorail'; did you mean 'tutorial'"):
        recipes["tutorail"]
