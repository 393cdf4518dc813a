"""Transformers' Trainer: the same bits as a loop by hand, accumulated, resumed, skipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler

import gclip
from tests.integrations.frameworks import (
    BATCH,
    STEPS,
    STRATEGIES,
    adam,
    by_hand,
    dataset,
    loss_of,
    module,
    network,
    same,
)

pytestmark = pytest.mark.filterwarnings("ignore")
hf = module("transformers")
integration = module("gclip.integrations.transformers")
ClippingCallback = integration.ClippingCallback


class Net(nn.Module):
    def __init__(self, broken: int | None = None) -> None:
        super().__init__()
        self.net, self.calls, self.broken = network(), 0, broken

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        loss = loss_of(self.net(x), labels)
        return {"loss": loss * float("nan") if self.calls == self.broken else loss}


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.inputs, self.targets = dataset().tensors

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.inputs[index], "labels": self.targets[index]}


class InOrder(hf.Trainer):  # type: ignore[misc]
    def _get_train_sampler(self, *_: Any) -> Any:
        return SequentialSampler(self.train_dataset)


def trainer(model: Net, callbacks: list[Any], folder: Path, **more: Any) -> Any:
    given = {
        "max_steps": STEPS, "max_grad_norm": 0, "save_strategy": "no", "logging_strategy": "no",
        **more,
    }  # fmt: skip
    args = hf.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, use_cpu=True, disable_tqdm=True,
        report_to="none", dataloader_pin_memory=False, **given,
    )  # fmt: skip
    optimizer = adam(model.parameters())
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return InOrder(
        model, args, train_dataset=Rows(), callbacks=callbacks, optimizers=(optimizer, constant)
    )


def of_net(strategy: Any) -> Any:
    """The strategy as the model's names have it."""
    if isinstance(strategy, dict):
        return {f"net.{p}" if p != "*" else p: each for p, each in strategy.items()}
    return strategy


def train(strategy: Any, folder: Path, model: Net | None = None, **more: Any) -> tuple[Net, Any]:
    model, callback = model or Net(), ClippingCallback(of_net(strategy))
    trainer(model, [callback], folder, **more).train()
    return model, callback


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_fifty_steps_are_those_of_a_loop_by_hand(strategy: Any, tmp_path: Path) -> None:
    model, callback = train(strategy, tmp_path)
    expected, clipper = by_hand(strategy)
    assert clipper.record.summary().clip_rate > 0
    assert same(model.net, expected)
    ours, theirs = callback.handle.record.arrays(), clipper.record.arrays()
    assert all((ours[name] == theirs[name]).all() for name in ("norm", "clipped", "skipped"))


class AfterTheStep(hf.TrainerCallback):  # type: ignore[misc]
    """What a callback in the wrong hook does."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.clipper = gclip.Clipper(given["model"], "zclip(warmup=2)")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.clipper.step()


def test_clipping_after_the_step_would_be_seen(tmp_path: Path) -> None:
    model = Net()
    trainer(model, [AfterTheStep()], tmp_path).train()
    assert not same(model.net, by_hand("zclip(warmup=2)")[0])
    assert same(model.net, by_hand("none")[0])


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_resumed_run_goes_on_to_the_same_bits(strategy: Any, tmp_path: Path) -> None:
    more = {"save_strategy": "steps", "save_steps": 20}
    whole, callback = train(strategy, tmp_path, **more)
    model, again = Net(), ClippingCallback(of_net(strategy))
    trainer(model, [again], tmp_path).train(str(tmp_path / "checkpoint-20"))
    assert same(model.net, whole.net)
    ours, theirs = again.handle.record.arrays(), callback.handle.record.arrays()
    assert len(ours["norm"]) == STEPS
    assert all((ours[name] == theirs[name]).all() for name in ("norm", "clipped", "skipped"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    train("zclip(warmup=2)", tmp_path / "first", save_strategy="steps", save_steps=20)
    return tmp_path / "first" / "checkpoint-20"


def test_a_checkpoint_that_has_moved_is_found_or_asked_for(checkpoint: Path) -> None:
    moved = checkpoint.parents[1] / "elsewhere"
    shutil.move(checkpoint, moved)
    for folder in (None, moved):
        model, callback = Net(), ClippingCallback("zclip(warmup=2)", resume_from=folder)
        run = trainer(model, [callback], checkpoint.parents[1] / "second")
        if folder is None:
            with pytest.raises(gclip.UsageError, match="resume_from"):
                run.train(str(moved))
        else:
            run.train(str(moved))
            assert same(model.net, by_hand("zclip(warmup=2)")[0])


def test_a_file_of_another_run_is_not_taken(checkpoint: Path) -> None:
    other = checkpoint.parents[1] / "other"
    train("zclip(warmup=2)", other, save_strategy="steps", save_steps=20)
    shutil.copy(other / "checkpoint-20" / "gclip.pt", checkpoint / "gclip.pt")
    run = trainer(Net(), [ClippingCallback("zclip(warmup=2)")], checkpoint.parent)
    with pytest.raises(gclip.UsageError, match="gclip.pt is neither"):
        run.train(str(checkpoint))


def test_callbacks_that_the_trainer_makes_again_go_on_too(checkpoint: Path) -> None:
    """Under ``restore_callback_states_from_checkpoint`` it makes new ones of what was saved."""
    model = Net()
    run = trainer(
        model, [ClippingCallback("zclip(warmup=2)")], checkpoint.parent,
        restore_callback_states_from_checkpoint=True,
    )  # fmt: skip
    run.train(str(checkpoint))
    assert same(model.net, by_hand("zclip(warmup=2)")[0])
    ours = [each for each in run.callback_handler.callbacks if isinstance(each, ClippingCallback)]
    assert [len(each.handle.record) for each in ours] == [STEPS]


def test_accumulated_batches_are_clipped_once(tmp_path: Path) -> None:
    more = {"gradient_accumulation_steps": 5, "max_steps": 10}
    model, callback = train("adagc(warmup=3)", tmp_path, **more)
    expected, clipper = by_hand("adagc(warmup=3)", accumulate=5, steps=10)
    assert clipper.record.summary().clip_rate > 0
    assert same(model.net, expected)
    assert len(callback.handle.record) == 10


def test_a_skipped_step_leaves_no_trace(tmp_path: Path) -> None:
    states: list[list[Tensor]] = []

    class Watch(hf.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            kept = given["optimizer"].state.values()
            moments = [t.clone() for each in kept for t in each.values()]
            states.append([*moments, *(p.detach().clone() for p in given["model"].parameters())])

    callback = ClippingCallback("norm")
    trainer(Net(broken=8), [callback, Watch()], tmp_path).train()
    assert all(torch.equal(a, b) for a, b in zip(states[6], states[7], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(states[7], states[8], strict=True))
    assert callback.handle.record.arrays()["skipped"].nonzero()[0].tolist() == [7]


def test_a_gradient_scaler_calls_what_clips(tmp_path: Path) -> None:
    """Accelerate keeps an optimizer's step from before for its scaler."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    Accelerator(cpu=True)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)
    callback = ClippingCallback("norm(max_norm=0.1)")
    args = SimpleNamespace(max_grad_norm=0, output_dir="")
    state = SimpleNamespace(max_steps=1, global_step=0)
    callback.on_train_begin(args, state, None, model=model, optimizer=wrapped)
    before = [p.detach().clone() for p in model.parameters()]
    x, y = dataset(1).tensors
    scaler.scale(loss_of(model(x), y)).backward()
    wrapped.step()
    moved = [a - b for a, b in zip(before, model.parameters(), strict=True)]
    assert torch.cat([each.flatten() for each in moved]).norm().item() == pytest.approx(0.1)
    assert callback.handle.report.norm.item() < 100  # it was unscaled


def test_the_log_has_what_clipping_did(tmp_path: Path) -> None:
    callback = ClippingCallback("zclip(warmup=2)")
    run = trainer(Net(), [callback], tmp_path, logging_strategy="steps", logging_steps=20)
    run.train()
    rows = [row for row in run.state.log_history if "clip/norm" in row]
    columns = callback.handle.record.arrays()
    assert [row["step"] for row in rows] == [20, 40]
    for row in rows:
        last = row["step"] - 1
        assert row["clip/norm"] == columns["norm"][last]
        assert row["clip/limit"] == columns["limit"][last]
        assert row["clip/clip_rate"] == pytest.approx(
            columns["clipped"][last - 19 : last + 1].mean()
        )


def test_two_clippings_are_told_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="set max_grad_norm=0"):
        train("norm", tmp_path, max_grad_norm=1.0, max_steps=1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ClippingCallback("per_sample"), "clips single examples"),
        (lambda: ClippingCallback("nrm"), "did you mean 'norm'"),
        (lambda: ClippingCallback(3), "but got int"),
        (lambda: ClippingCallback("norm", exlude=["*"]), "did you mean 'exclude'"),
    ],
)
def test_what_cannot_be_is_said(make: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(gclip.UsageError, match=words):
        trainer(Net(), [make()], tmp_path).train()
