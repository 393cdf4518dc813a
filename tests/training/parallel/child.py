"""Two processes that train runs together; `test_parallel.py` starts them.

``python child.py FOLDER`` writes what each came to into FOLDER.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import gclip
import gclip.cli
import gclip.results.tensorboard  # what commands load, before there are two processes
from gclip.training import Dataset, RunConfig, load_dataset, train
from tests.processes import fork, meet_again

BASE: dict[str, Any] = {
    "fraction": 0.1, "epochs": 1, "batch_size": 31, "lr": 0.02, "model": "mlp(width=12, depth=1)",
    "strategy": "norm(max_norm=0.5)",
}  # fmt: skip
"""Five steps, of 15 and 16 examples each; the last of 10 and 11."""
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": "adam", "lr": 1e-3, "epochs": 2},
    "accumulate": {"batch_size": 11, "accumulate": 3},
    "augment": {"augment": True, "model": "lenet", "batch_size": 64},
    "dropout": {"model": "lenet", "dropout": 0.3, "batch_size": 64},
    "mixing": {"model": "mixing", "epochs": 2, "lr": 5e-3},
    "mixing, the last batch of one": {"model": "mixing", "batch_size": 36},
    "batches of one": {"batch_size": 1, "fraction": 0.01},
    "disturbed": {"gradient_noise": 0.3, "spikes": 0.4, "label_noise": 0.2},
    "watched": {"watch": "layer", "schedule": "cosine", "split": "validation"},
    "a regression": {"task": "line", "fraction": 1.0, "batch_size": 13},
    "bf16": {"precision": "bf16"},
    "skipped": {"strategy": "norm(max_norm=5, rule=skip)"},
    "diverged": {"lr": 1e30},
}
REFUSED: dict[str, dict[str, Any]] = {
    "examples": {"strategy": "norm(side=sample)"},
    "gan": {"task": "gan-digits", "model": None, "fraction": 1.0, "batch_size": 16},
    "means": {"model": "centred"},
    "noise": {"model": "noisy"},
    "lstm": {"model": "dropping"},
    "weights": {"task": "weighted"},
}


STRATEGIES = (
    "percentile(p=30, scope=tensor)", "adagc(warmup=2)", "agc", "spam(threshold=10, warmup=1)",
    "random(max_norm=0.4)", "clippy", "value(clip_value=0.01)",
    "chain(norm(max_norm=0.1, scope=unit), update_rms(max_rms=0.001))",
)  # fmt: skip
"""Memories of every kind, and both sides; all strategies where ``GCLIP_DISTRIBUTED`` is set."""


def settings_of_strategies() -> dict[str, dict[str, Any]]:
    """A run with each strategy, but those of single examples."""
    every = [name for name in gclip.names() if gclip.create(name).side != "sample"]
    chosen = (*STRATEGIES, *every) if os.environ.get("GCLIP_DISTRIBUTED") else STRATEGIES
    return {each: {"strategy": each, "batch_size": 48, "epochs": 3} for each in chosen}


def config(**settings: Any) -> RunConfig:
    given = {name: value for name, value in {**BASE, **settings}.items() if value is not None}
    return RunConfig(**given)


def register() -> None:
    """A model that mixes the examples of a batch as it may, and others that do so as they may not.

    Here, so that processes and the test register the same.
    """

    @gclip.register_model("mixing")
    def mixing(inputs: Any, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=3), nn.BatchNorm2d(4), nn.Dropout2d(0.2), nn.Flatten(),
            nn.Linear(400, 16), nn.BatchNorm1d(16, momentum=None), nn.Tanh(), nn.Dropout(0.3),
            nn.Linear(16, outputs),
        )  # fmt: skip

    class Centred(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            x = super().forward(input.flatten(1))
            return x - x.mean(0) if self.training else x

    class Noisy(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            x = input.flatten(1)
            return super().forward(x + torch.randn_like(x) if self.training else x)

    class Dropping(nn.LSTM):
        def __init__(self, outputs: int) -> None:
            super().__init__(96, outputs, 2, dropout=0.2, batch_first=True)

        def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
            states: Tensor = super().forward(input.flatten(2).transpose(1, 2).reshape(-1, 32, 96))[
                0
            ]
            return states[:, -1]

    gclip.register_model("centred")(lambda inputs, outputs: Centred(3072, outputs))
    gclip.register_model("noisy")(lambda inputs, outputs: Noisy(3072, outputs))
    gclip.register_model("dropping")(lambda inputs, outputs: Dropping(outputs))

    @gclip.register_problem("line")
    @dataclass(frozen=True, kw_only=True)
    class Line(gclip.Supervised):
        metric = gclip.Metric("squared error", better="lower", worst=9.0)
        defaults: ClassVar[dict[str, Any]] = {"model": "mlp", "batch_size": 8, "epochs": 1}

        def data(self, source: Any) -> Any:
            draws = torch.Generator().manual_seed(0)
            inputs = torch.randn(58, 6, generator=draws)
            return inputs[:40], inputs[:40].sum(1), inputs[40:], inputs[40:].sum(1)

    @gclip.register_problem("weighted")
    @dataclass(frozen=True, kw_only=True)
    class Weighted(gclip.Supervised):
        defaults: ClassVar[dict[str, Any]] = {"model": "mlp", "batch_size": 8, "epochs": 1}

        def data(self, source: Any) -> Any:
            return load_dataset("digits")

        def loss(self, outputs: Tensor, targets: Tensor, reduction: Any = "mean") -> Tensor:
            weight = torch.arange(1.0, 11.0)
            return nn.functional.cross_entropy(outputs, targets, weight, reduction=reduction)


def outcome(result: Any) -> dict[str, Any]:
    """What of a result must be the same, as tensors and numbers."""
    return {
        "key": result.config.key,
        "status": (result.status, result.stopped_at, result.message),
        "steps": {name: torch.from_numpy(each) for name, each in result.steps.items()},
        "score": result.score,
        "loss": result.loss,
        "curve": [{k: v for k, v in point.items() if k != "seconds"} for point in result.curve],
        "layers": None if result.layers is None else torch.from_numpy(result.layers.after),
        "world_size": result.environment.get("world_size"),
    }


def trained(settings: dict[str, Any], data: Dataset, **how: Any) -> dict[str, Any]:
    chosen = config(**settings)
    given = data if chosen.task == "digits" else None
    return outcome(train(chosen, dataset=given, device="cpu", **how))


def work(rank: int) -> dict[str, Any]:
    from gclip.training import World

    register()
    folder, data = Path(sys.argv[1]), load_dataset("digits")
    world = World.join("cpu")
    out: dict[str, Any] = {"runs": {}, "refused": {}}
    for name, settings in {**SETTINGS, **settings_of_strategies()}.items():
        out["runs"][name] = trained(settings, data, world=world)
    for name, settings in {**REFUSED, "another seed": {"seed": rank}}.items():
        try:
            trained(settings, data, world=world)
        except gclip.UsageError as error:
            out["refused"][name] = str(error)

    # One epoch, and a checkpoint, of which one process goes on; and the other way round.
    longer = SETTINGS["mixing"]
    told: list[int] = []

    def stop(progress: Any) -> bool:
        told.append(progress.epoch)
        return progress.epoch < 1

    shared, alone = folder / "shared.gclip", folder / "alone.gclip"
    out["pruned"] = trained(longer, data, world=world, checkpoint=shared, on_progress=stop)
    out["told"] = told
    if rank == 0:
        out["from shared"] = trained(longer, data, checkpoint=shared)
        trained(longer, data, checkpoint=alone, on_progress=stop)
    out["from alone"] = trained(longer, data, world=world, checkpoint=alone)
    world.leave()
    out["patience"] = patience(rank)
    os.chdir(folder)
    register_failing(rank)
    out["commands"] = {name: commanded(name) for name in COMMANDS}
    if rank == 1:
        torch.save(out, folder / "1.pt")  # before it dies
    out["commands"]["one dies"] = commanded("one dies", *of("dying"))
    return out


def patience(rank: int) -> tuple[str, bool]:
    """What is said when a process does not answer."""
    from gclip.training.parallel.world import LostProcess, World

    meet_again()
    world = World.join("cpu", patience=datetime.timedelta(seconds=1))
    try:
        if rank == 1:
            time.sleep(2)
        world.add_up(torch.zeros(1))
    except LostProcess as error:
        return str(error), world.is_first
    finally:
        world.leave()
    return "", world.is_first


TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


def of(model: str) -> tuple[str, ...]:
    return ("train", "-s", "norm", "--model", model, *TINY)


COMMANDS: dict[str, tuple[str, ...]] = {
    "trained": ("train", "-s", "agc", *TINY),
    "read": ("train", "-s", "agc", *TINY),
    "a wrong option": ("train", "--frction", "0.1"),
    "a wrong value": ("train", "--lr", "-1"),
    "a gan": ("train", "--task", "gan-digits", "--epochs", "1", "--device", "cpu"),
    "one fails": of("failing"),
    "one refuses": of("refusing"),
    "interrupted": of("interrupted"),
    "compare": ("compare", "-s", "none", "-s", "norm", *TINY),
    "survey": ("survey", *TINY),
}


def commanded(name: str, *arguments: str) -> tuple[int, str, str]:
    """A command's exit code in this process, and what it printed."""
    from gclip.cli import main

    meet_again()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind "&"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments or COMMANDS[name])
    return code, out.getvalue(), err.getvalue()


def register_failing(rank: int) -> None:
    """Models whose fifth pass (two are tried before the run) goes wrong in the second process."""

    class Fifth(nn.Linear):
        def __init__(self, outputs: int, what: str) -> None:
            super().__init__(3072, outputs)
            self.what, self.passes = what, 0

        def forward(self, input: Tensor) -> Tensor:
            self.passes += 1
            if self.passes == 5 and self.what == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)
            if self.passes == 5 and rank == 1:
                if self.what == "failing":
                    raise RuntimeError("no memory left")
                if self.what == "refusing":
                    raise gclip.UsageError("this row is refused")
                if self.what == "dying":
                    os._exit(0)
            return super().forward(input.flatten(1))

    gclip.register_model("failing")(lambda inputs, outputs: Fifth(outputs, "failing"))
    gclip.register_model("refusing")(lambda inputs, outputs: Fifth(outputs, "refusing"))
    gclip.register_model("interrupted")(lambda inputs, outputs: Fifth(outputs, "interrupted"))
    gclip.register_model("dying")(lambda inputs, outputs: Fifth(outputs, "dying"))


if __name__ == "__main__":
    fork(2, work, Path(sys.argv[1]))
