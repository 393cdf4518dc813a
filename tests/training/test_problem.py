"""Problems: trained as a loop by hand would, to the bit; told in one sentence what is wrong."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import gclip
from gclip.core.registry import parse_for_run
from gclip.errors import UsageError
from gclip.training import RunConfig, seeds, task_defaults, train
from gclip.training.problem_data import ProblemData
from gclip.training.problem_registry import PROBLEMS, SETTINGS, find_problem, problem_code
from gclip.training.problem_run import ProblemRun
from gclip.training.run_state import RunState
from gclip.training.tasks import problem_of
from tests.training import toy_problem
from tests.training.toy_problem import ToyLine, ToyPair

CPU = torch.device("cpu")
PROMPT = {"device": "cpu"}


def by_hand(config: RunConfig, max_norm: float | None = None) -> tuple[list[float], nn.Module]:
    """The losses and the net of a run of ``toy-line``, in a loop without anything of gclip's but
    its seeds."""
    problem = problem_of(config.task)
    state = RunState(config, None, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(config.seed, "weights"))
        net = problem.players(config)
        torch.manual_seed(seeds.derive(config.seed, "dropout"))
        problem.setup(state)
        optimizer = torch.optim.SGD(net.parameters(), lr=config.lr, momentum=0.9, fused=True)
        losses = []
        for epoch in range(config.epochs):
            net.train()
            for batch in problem.batches(state, epoch):
                [(_, loss)] = problem.losses({"model": net}, batch)
                optimizer.zero_grad()
                loss.backward()
                if max_norm is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), max_norm)
                optimizer.step()
                losses.append(float(loss.detach()))
    return losses, net


@pytest.mark.parametrize("task", ["toy-line", "toy-line(dropout=0.5, slope=-1)"])
def test_a_run_is_the_loop_by_hand(task):
    for strategy, max_norm in (("none", None), ("norm(max_norm=0.5)", 0.5)):
        config = RunConfig(task=task, strategy=strategy, seed=4)
        losses, net = by_hand(config, max_norm)
        result = train(config, **PROMPT)
        close = {"rtol": 0, "atol": 0} if max_norm is None else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(result.steps["loss"], np.float32(losses), **close)
        net.eval()
        with torch.no_grad():
            scores = problem_of(task).evaluate({"model": net}, _seen(config), "test")
        np.testing.assert_allclose(result.score, float(scores["mean squared error"]), **close)


def _seen(config):
    state = RunState(config, None, CPU)
    state.keep["seen"] = 0
    return state


def test_what_a_result_says():
    result = train(RunConfig(task="toy-line"), **PROMPT)
    assert result.metric == ToyLine.metric
    assert result.scores == {"mean squared error": result.score, "seen": 3 * 6 * 8}
    assert np.isnan([result.accuracy, result.chance, result.loss]).all()
    assert [point["epoch"] for point in result.curve] == [1, 2, 3]
    assert [point["step"] for point in result.curve] == [6, 12, 18]
    assert result.curve[-1]["score"] == result.score
    back = type(result).from_dict(result.to_dict())
    assert (back.score, back.metric, back.scores) == (result.score, result.metric, result.scores)


def test_defaults_fields_and_code_are_part_of_a_config():
    config = RunConfig(task="toy-line")
    assert config == task_defaults("toy-line")
    assert (config.optimizer, config.lr, config.batch_size, config.epochs) == ("sgd", 0.1, 8, 3)
    assert (config.model, config.problem_code) == ("", problem_code(ToyLine()))
    assert RunConfig(task="toy-line( slope = 3 )").key == config.key
    assert RunConfig(task="toy-line(slope=2)").task == "toy-line(slope=2)"
    assert RunConfig(task="toy-line(slope=2)").key != config.key
    assert RunConfig(task="toy-line", optimizer="adam").lr == 1e-3
    assert RunConfig(task="toy-line", optimizer="adam", lr=0.1).key != config.key
    assert '"problem_code"' not in RunConfig().to_json()
    # A stored run of a plugin that is not here can still be read.
    gone = config.to_json().replace("toy-line", "gone-line")
    assert RunConfig.from_json(gone).task == "gone-line"


@pytest.mark.parametrize("strategy", ["norm", "zclip", "random", "update_rms"])
@pytest.mark.parametrize("task", ["toy-line(dropout=0.5)", "toy-pair"])
def test_a_resumed_run_goes_on_to_the_same_bits(task, strategy, tmp_path):
    if strategy == "random" and "random" not in gclip.names():
        strategy = next(name for name in gclip.names() if name.startswith("random"))
    config = task_defaults(task).replace(strategy=strategy, optimizer="adam", lr=0.01)
    whole = train(config, **PROMPT)
    file = tmp_path / "checkpoint"
    broken = train(config, checkpoint=file, on_progress=lambda p: p.epoch < 1, **PROMPT)
    assert broken.status == "pruned"
    again = train(config, checkpoint=file, **PROMPT)
    assert again.curve[-1] | {"seconds": 0} == whole.curve[-1] | {"seconds": 0}
    assert {k: v.tobytes() for k, v in again.steps.items()} == {
        k: v.tobytes() for k, v in whole.steps.items()
    }
    assert again.clipping == whole.clipping


def test_dropout_is_paired_whatever_a_strategy_draws():
    """Masks come from a stream of their own: strategies that draw at random do not shift them."""
    drawing = next(name for name in gclip.names() if "random" in name)
    first = [
        train(RunConfig(task="toy-line(dropout=0.5)", strategy=each, lr=1e-9), **PROMPT)
        for each in ("none", drawing)
    ]
    np.testing.assert_allclose(first[0].steps["loss"], first[1].steps["loss"], rtol=1e-5)


def test_global_random_states_have_no_say():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        results.append(train(RunConfig(task="toy-line(dropout=0.2)"), **PROMPT))
    assert results[0].steps["loss"].tobytes() == results[1].steps["loss"].tobytes()


def test_a_diverged_run_scores_the_worst():
    result = train(RunConfig(task="toy-line", lr=1e12), **PROMPT)
    assert (result.status, result.score, result.loss) == ("diverged", 20.0, np.inf)
    assert result.scores == {"mean squared error": 20.0, "loss": np.inf}
    assert "not finite" in result.message


# -- players ---------------------------------------------------------------------------------------


def test_players_step_in_turn_each_with_its_own_strategy():
    config = RunConfig(
        task="toy-pair", strategy="players(a=value(clip_value=0.1), b=none)", epochs=1,
        momentum=0.0,
    )  # fmt: skip
    assert config.strategy == "players(a=value(clip_value=0.1), b=none)"
    run = ProblemRun(config, ProblemData(name=config.task, value=None), CPU)
    a, b = (float(run.players[name].network.weight.detach()) for name in "ab")
    assert run.train_epoch(lambda: True)
    for _ in range(4):
        a -= 0.05 * float(np.clip(2 * (a - b), -0.1, 0.1))
        for _ in range(2):
            b -= 0.05 * (a - b)
    assert float(run.players["a"].network.weight.detach()) == pytest.approx(a, rel=1e-5)
    assert float(run.players["b"].network.weight.detach()) == pytest.approx(b, rel=1e-5)
    assert (run.step, run.steps) == (12, 12)
    run.measure(0.0)
    result = run.result("finished", "", seconds=0.0, environment={})
    assert result.steps["player"].tolist() == [0, 1, 1] * 4
    assert result.clipping["steps"] == 12
    each = result.clipping["players"]
    assert (each["a"]["steps"], each["b"]["steps"]) == (4, 8)
    assert (each["a"]["clip_rate"], each["b"]["clip_rate"]) == (1.0, 0.0)
    assert result.clipping["clip_rate"] == pytest.approx(4 / 12)
    # The norms stand in the order of the steps.
    assert result.steps["clipped_norm"][[0, 3, 6, 9]].tolist() == pytest.approx([0.1] * 4)


def test_one_strategy_is_every_players():
    config = RunConfig(task="toy-pair", strategy="norm(max_norm=0.01)", epochs=1)
    result = train(config, **PROMPT)
    assert result.clipping["players"]["a"]["clip_rate"] == 1.0
    assert result.clipping["players"]["b"]["clip_rate"] == 1.0


def test_spellings_of_players():
    parsed = parse_for_run("players(a=agc(clip_factor=0.1), b=chain(value, norm))")
    assert str(parsed) == "players(a=agc(clip_factor=0.1), b=chain(value, norm))"
    assert [part.name for part in parsed.strategies] == ["agc", "value", "norm"]
    for text, sentence in {
        "players(a=norm, a=agc)": "'a' should be given once",
        "players()": "takes a strategy for each player",
        "players(norm)": "'=' and a value for 'norm'",
        "players(a=players(b=norm))": "one strategy is meant",
        "players(a=nrom)": "unknown strategy 'nrom'; did you mean 'norm'",
    }.items():
        with pytest.raises(UsageError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
            parse_for_run(text)
    with pytest.raises(UsageError, match="one strategy is meant"):
        gclip.parse("players(a=norm)")
    for strategy, sentence in {
        "players(a=norm, c=norm)": "unknown player 'c'",
        "players(a=norm)": "gives no strategy to b",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            train(RunConfig(task="toy-pair", strategy=strategy), **PROMPT)


# -- what is wrong -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wrong(ToyLine):
    """A line of which one method is wrong, as `broken` says."""

    broken: str = ""

    def players(self, config):
        if self.broken == "players":
            return [nn.Linear(1, 1)]
        return super().players(config)

    def batches(self, state, epoch):
        for batch in super().batches(state, epoch):
            if self.broken == "raises":
                raise KeyError("x")
            yield batch

    def losses(self, players, batch):
        x, y = batch
        loss = (players["model"](x) - y).square().mean()
        if self.broken == "returned":
            return loss
        return iter(
            [
                {
                    "name": ("modle", loss),
                    "plain": loss,
                    "detached": ("model", loss.detach()),
                    "vector": ("model", loss.expand(2)),
                }.get(self.broken, ("model", loss))
            ]
        )

    def evaluate(self, players, state, split):
        good = dict(super().evaluate(players, state, split))
        return {
            "missing": {"mse": 1.0},
            "undefined": {"mean squared error": float("nan")},
            "number": 1.0,
            "text": {"mean squared error": "small"},
            "reserved": {**good, "step": 3},
        }.get(self.broken, good)


@pytest.fixture(scope="module", autouse=True)
def _wrong():
    gclip.register_problem("toy-wrong")(Wrong)
    yield
    del PROBLEMS._entries["toy-wrong"]
    find_problem.cache_clear()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("players", r"players must return networks by name, .* but got \[Linear"),
        ("raises", r"batches raised KeyError: 'x' \(line \d+ of test_problem.py\)"),
        ("returned", "losses must yield pairs .* but returned Tensor"),
        ("name", "losses must yield pairs .* of the players model, but got 'modle'"),
        ("plain", r"losses must yield pairs .* but got a tensor of shape \(\)"),
        ("detached", "that of model has no gradient"),
        ("vector", r"loss is one number, but for model got a tensor of shape \(2,\)"),
        ("missing", "the metric 'mean squared error' among them, but got mse"),
        ("undefined", "evaluate gave NaN for 'mean squared error', though all parameters"),
        ("number", "evaluate must return numbers by name.* but got 1.0"),
        ("text", "'mean squared error' is 'small'"),
        ("reserved", "'step' is a column of every curve"),
    ],
)
def test_a_wrong_problem_is_told_in_a_sentence(broken, sentence):
    config = RunConfig(task=f"toy-wrong(broken={broken})", epochs=1)
    with pytest.raises(
        UsageError, match=f"problem toy-wrong: .*{sentence}|problem toy-wrong: {sentence}"
    ):
        train(config, **PROMPT)


def test_settings_that_make_no_sense():
    for settings, sentence in (
        ({"model": "lenet"}, "builds networks of its own and takes no model"),
        ({"dropout": 0.1}, "takes no dropout"),
        ({"fraction": 0.5}, "fraction=0.5 makes no sense for task toy-line"),
        ({"accumulate": 2}, "accumulate=2 makes no sense"),
        ({"augment": True}, "augment=True makes no sense"),
        ({"label_noise": 0.1}, "label_noise=0.1 makes no sense"),
    ):
        with pytest.raises(UsageError, match=sentence):
            RunConfig(task="toy-line", **settings)
    with pytest.raises(UsageError, match="clips single examples, whose gradients task toy-line"):
        train(RunConfig(task="toy-line", strategy="per_sample"), **PROMPT)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("toy-lien", "unknown task 'toy-lien'; did you mean 'toy-line'"),
        ("toy-line(slop=1)", "unknown field 'slop'; did you mean 'slope'"),
        ("toy-line(slope=steep)", "slope must be a number, but got 'steep'"),
        ("toy-line(slope=1", "cannot read the task"),
        ("toy-line(dropout=1)", "dropout must be at least 0 and below 1"),
    ],
)
def test_wrong_spellings(task, sentence):
    with pytest.raises(UsageError, match=sentence):
        RunConfig(task=task)


def test_wrong_classes():
    def register(**namespace):
        cls = dataclass(frozen=True, kw_only=True)(
            type("Bad", (ToyLine,), {"__module__": __name__, "__annotations__": {}, **namespace})
        )
        return gclip.register_problem("toy-bad")(cls)

    for namespace, sentence in (
        ({"metric": "accuracy"}, "must have a metric"),
        ({"defaults": {"learning_rate": 1}}, "unknown field of RunConfig 'learning_rate'"),
        ({"updates": {"model": 0}}, "must be a whole number ≥ 1"),
    ):
        with pytest.raises(UsageError, match=sentence):
            register(**namespace)
    with pytest.raises(UsageError, match="frozen=True"):
        gclip.register_problem("toy-bad")(type("Bad", (ToyLine,), {}))
    with pytest.raises(UsageError, match="must define batches, evaluate, losses, players"):

        @gclip.register_problem("toy-bad")
        @dataclass(frozen=True, kw_only=True)
        class Bare(gclip.Problem):
            metric = ToyLine.metric

    with pytest.raises(UsageError, match="is taken by"):
        gclip.register_problem("toy-line")(Wrong)
    with pytest.raises(UsageError, match="lower-case"):
        gclip.register_problem("Toy")(Wrong)


def test_schedules_need_the_number_of_steps(monkeypatch):
    monkeypatch.setattr(ToyLine, "batches_per_epoch", lambda self, state: None)
    result = train(RunConfig(task="toy-line", epochs=1), **PROMPT)
    assert len(result.steps["loss"]) == toy_problem.BATCHES
    with pytest.raises(UsageError, match="cosine needs the number of steps"):
        train(RunConfig(task="toy-line", schedule="cosine"), **PROMPT)
    monkeypatch.setattr(ToyLine, "batches_per_epoch", lambda self, state: 2)
    with pytest.raises(UsageError, match="stepped more than the 6 times"):
        train(RunConfig(task="toy-line", schedule="cosine"), **PROMPT)


def test_what_checkpoints_cannot_keep_is_told(monkeypatch, tmp_path):
    def setup(self, state):
        state.keep["seen"] = 0
        state.keep["file"] = object()

    monkeypatch.setattr(ToyLine, "setup", setup)
    with pytest.raises(UsageError, match=r"state.keep\['file'\] holds object"):
        train(RunConfig(task="toy-line"), checkpoint=tmp_path / "c", **PROMPT)


def test_both_pairs_are_problems():
    assert {"toy-line", "toy-pair"} <= set(PROBLEMS.names())
    assert problem_of("toy-pair") == ToyPair()


def test_every_setting_of_a_config_may_be_a_problems_default():
    own = {"task", "data", "selection", "strategy", "code", "stepping", "problem_code", "seed"}
    every = {field.name for field in dataclasses.fields(RunConfig)}
    assert set(SETTINGS) == every - own - {"model_code"}
