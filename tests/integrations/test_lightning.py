"""Lightning: the same bits as a loop by hand, whatever precision, optimizers and interruptions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

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
L = module("lightning.pytorch")
integration = module("gclip.integrations.lightning")
Clipping = integration.Clipping


class Stateful:
    """Batches that know how many they have given: others Lightning gives from the first again."""

    def __init__(self) -> None:
        self.batches = list(DataLoader(dataset(), batch_size=BATCH))
        self.given = self.start = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        self.given, self.start = self.start, 0
        while self.given < len(self.batches):
            self.given += 1
            yield self.batches[self.given - 1]

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["given"]


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, index: int) -> Any:
        x, y = batch
        return loss_of(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return adam(self.net.parameters())

    def train_dataloader(self) -> Any:
        return Stateful()


def trainer(callbacks: list[Any], folder: Any, **more: Any) -> Any:
    defaults = {"max_epochs": 1, "logger": False, "enable_checkpointing": False}
    return L.Trainer(
        **{**defaults, **more}, callbacks=callbacks, accelerator="cpu", default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def of_net(strategy: Any) -> Any:
    """The strategy as Lightning's names have it."""
    if isinstance(strategy, dict):
        return {f"net.{p}" if p != "*" else p: each for p, each in strategy.items()}
    return strategy


def fit(strategy: Any, folder: Any, model: Any = None, **more: Any) -> tuple[Any, Any]:
    model, callback = model or Net(), Clipping(of_net(strategy))
    trainer([callback], folder, **more).fit(model)
    return model, callback


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_fifty_steps_are_those_of_a_loop_by_hand(strategy: Any, tmp_path: Any) -> None:
    model, callback = fit(strategy, tmp_path)
    expected, clipper = by_hand(strategy)
    assert clipper.record.summary().clip_rate > 0
    assert same(model.net, expected)
    ours, theirs = callback.handles[0].record.arrays(), clipper.record.arrays()
    assert all((ours[name] == theirs[name]).all() for name in ("norm", "clipped", "skipped"))


class AfterTheStep(L.Callback):
    """What a callback in the wrong hook does."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.clipper = gclip.Clipper(pl_module, self.strategy, optimizer=trainer.optimizers[0])

    def on_train_batch_end(self, *_: Any) -> None:
        self.clipper.step()


def test_clipping_after_the_step_would_be_seen(tmp_path: Any) -> None:
    model = Net()
    trainer([AfterTheStep("zclip(warmup=2)")], tmp_path).fit(model)
    assert not same(model.net, by_hand("zclip(warmup=2)")[0])
    assert same(model.net, by_hand("none")[0])


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_resumed_run_goes_on_to_the_same_bits(strategy: Any, tmp_path: Any) -> None:
    saver = L.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=20, save_top_k=-1)
    callback, whole = Clipping(of_net(strategy)), Net()
    trainer([callback, saver], tmp_path, enable_checkpointing=True).fit(whole)
    model, again = Net(), Clipping(of_net(strategy))
    middle = next(tmp_path.glob("*step=20.ckpt"))
    trainer([again], tmp_path).fit(model, ckpt_path=middle)
    assert same(model.net, whole.net)
    ours, theirs = again.handles[0].record.arrays(), callback.handles[0].record.arrays()
    assert len(ours["norm"]) == STEPS
    assert all((ours[name] == theirs[name]).all() for name in ("norm", "clipped", "skipped"))


def test_accumulated_batches_are_clipped_once(tmp_path: Any) -> None:
    model, callback = fit("adagc(warmup=3)", tmp_path, accumulate_grad_batches=5)
    expected, clipper = by_hand("adagc(warmup=3)", accumulate=5, steps=10)
    assert clipper.record.summary().clip_rate > 0
    assert same(model.net, expected)
    assert len(callback.handles[0].record) == 10


class Two(Net):
    """Two optimizers, by hand; the second makes two steps a batch."""

    def __init__(self, closure: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.closure = closure

    def configure_optimizers(self) -> Any:
        return [adam(self.net[0].parameters()), adam(self.net[2].parameters())]

    def training_step(self, batch: Any, index: int) -> None:
        x, y = batch
        first, second = self.optimizers()
        for optimizer in (first, second, second):

            def closure(optimizer: Any = optimizer) -> Any:
                self.zero_grad()
                loss = loss_of(self.net(x), y)
                self.manual_backward(loss)
                return loss

            if self.closure:
                optimizer.step(closure=closure)
            else:
                closure()
                optimizer.step()


@pytest.mark.parametrize("closure", [False, True])
def test_manual_optimization_of_two(closure: bool, tmp_path: Any) -> None:
    strategies = ["zclip(warmup=2)", "norm(max_norm=0.3, rule=skip)"]
    model, callback = fit(strategies, tmp_path, Two(closure))
    expected = network()
    optimizers = [adam(expected[0].parameters()), adam(expected[2].parameters())]
    clippers = [
        gclip.Clipper(expected[i].named_parameters(), s)
        for i, s in zip((0, 2), strategies, strict=True)
    ]
    for x, y in DataLoader(dataset(), batch_size=BATCH):
        for i in (0, 1, 1):
            expected.zero_grad()
            loss_of(expected(x), y).backward()
            if not clippers[i].step().skipped:
                optimizers[i].step()
    assert same(model.net, expected)
    assert [len(handle.record) for handle in callback.handles] == [STEPS, 2 * STEPS]
    assert 0 < callback.handles[1].record.summary().skipped < 2 * STEPS


def scaled(model: Any, folder: Any) -> tuple[Any, Any]:
    """A run in 16-mixed whose scaler works on a CPU; it begins too high, so that steps overflow."""
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=7)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    callback = Clipping("zclip(warmup=2)")
    trainer([callback], folder, plugins=[plugin]).fit(model)
    return model, callback


def test_half_precision_is_clipped_after_unscaling(tmp_path: Any) -> None:
    model, callback = scaled(Net(), tmp_path)
    expected = network()
    optimizer = adam(expected.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=7)
    clipper = gclip.Clipper(expected, "zclip(warmup=2)")
    overflows = 0
    for x, y in DataLoader(dataset(), batch_size=BATCH):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16, cache_enabled=False):
            loss = loss_of(expected(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if all(bool(p.grad.isfinite().all()) for p in expected.parameters()):
            clipper.step()
        else:
            overflows += 1
        scaler.step(optimizer)
        scaler.update()
    assert 0 < overflows < STEPS
    assert same(model.net, expected)
    record = callback.handles[0].record
    assert len(record) == STEPS - overflows
    assert record.arrays()["norm"].max() < 100  # not scaled by 2 ** 20


def test_bfloat16(tmp_path: Any) -> None:
    model, _ = fit("zclip(warmup=2)", tmp_path, precision="bf16-mixed")
    expected = network()
    optimizer = adam(expected.parameters())
    clipper = gclip.Clipper(expected, "zclip(warmup=2)")
    for x, y in DataLoader(dataset(), batch_size=BATCH):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = loss_of(expected(x), y)
        loss.backward()
        clipper.step()
        optimizer.step()
    assert same(model.net, expected)


class Broken(Net):
    """One batch gives gradients that are not finite."""

    def training_step(self, batch: Any, index: int) -> Any:
        loss = super().training_step(batch, index)
        return loss * float("nan") if index == 7 else loss


def test_a_skipped_step_leaves_no_trace(tmp_path: Any) -> None:
    states: list[Any] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            (optimizer,) = trainer.optimizers
            state = [t.clone() for each in optimizer.state.values() for t in each.values()]
            states.append([*state, *(p.detach().clone() for p in pl_module.parameters())])

    callback = Clipping("norm")
    trainer([callback, Watch()], tmp_path).fit(Broken())
    assert all(torch.equal(a, b) for a, b in zip(states[6], states[7], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(states[7], states[8], strict=True))
    assert callback.handles[0].record.arrays()["skipped"].nonzero()[0].tolist() == [7]


def test_loggers_are_told_every_so_many_steps(tmp_path: Any) -> None:
    from lightning.pytorch.loggers.logger import DummyLogger

    told: list[tuple[int, dict[str, float]]] = []

    class Logger(DummyLogger):  # type: ignore[misc]
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            told.append((step or 0, dict(metrics)))

    _, callback = fit("zclip(warmup=2)", tmp_path, logger=Logger(), log_every_n_steps=20)
    clips = [(step, row) for step, row in told if "clip/norm" in row]
    assert [step for step, _ in clips] == [19, 39]
    columns = callback.handles[0].record.arrays()
    for step, row in clips:
        assert row["clip/norm"] == columns["norm"][step]
        assert row["clip/limit"] == columns["limit"][step]
        assert row["clip/clip_rate"] == pytest.approx(
            columns["clipped"][step - 19 : step + 1].mean()
        )


def test_optimizers_get_their_steps_back(tmp_path: Any) -> None:
    callback = Clipping("norm")
    run = trainer([callback], tmp_path, max_steps=2)
    run.fit(Net())
    (optimizer,) = run.optimizers
    assert gclip.attach(optimizer, "none")  # not clipped any longer


@pytest.mark.parametrize(
    ("make", "more", "words"),
    [
        (lambda: Clipping("norm"), {"gradient_clip_val": 1.0}, "leave one of the two out"),
        (lambda: Clipping(["norm", "agc"]), {}, "2 strategies for 1 optimizers"),
        (lambda: Clipping("per_sample"), {}, "clips single examples"),
        (lambda: Clipping("nrm"), {}, "did you mean 'norm'"),
        (lambda: Clipping("norm", exlude=["*"]), {}, "did you mean 'exclude'"),
    ],
)
def test_what_cannot_be_is_said(make: Any, more: Any, words: str, tmp_path: Any) -> None:
    with pytest.raises(gclip.UsageError, match=words):
        trainer([make()], tmp_path, **more).fit(Net())


def test_a_fused_optimizer_under_a_scaler_is_refused(tmp_path: Any) -> None:
    class Fused(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.net.parameters(), fused=True)

    with pytest.raises(gclip.UsageError, match="fused=False"):
        scaled(Fused(), tmp_path)


def test_lightning_says_nothing_about_our_order(tmp_path: Any) -> None:
    """A scheduler that believes it was called before the optimizer warns."""

    class Scheduled(Net):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit("norm(max_norm=1e-6, rule=skip)", tmp_path, Scheduled(), max_steps=3)
    assert not [each for each in caught if "lr_scheduler" in str(each.message)]
