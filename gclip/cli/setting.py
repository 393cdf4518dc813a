"""What is trained: one option for each field of a config that a user would set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training import RunConfig

_PANEL = "What is trained"


def _setting(*names: str, help: str, default: str, metavar: str | None = None) -> Any:
    """An option whose default is the recipe's, or this one of the task's."""
    return typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=_PANEL, show_default=default
    )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained. Whatever is left out is the recipe's, or the task's default."""

    recipe: Annotated[
        str | None,
        _setting(
            "--recipe",
            help="Start from known settings: tutorial.",
            default="none",
            metavar="NAME",
        ),
    ] = None
    task: Annotated[
        str | None,
        _setting(
            "--task",
            help="What is learned: digits (embedded), cifar10, images (of your own), "
            "torchvision:NAME, linear, adding, chars, gan-digits, cartpole-dqn or "
            'cartpole-reinforce, with fields: "adding(length=200)".',
            default="digits",
            metavar="TASK",
        ),
    ] = None
    data: Annotated[
        Path | None,
        _setting(
            "--data",
            help="Folder of the data: cifar-10-batches-py, or class folders in train/ and test/.",
            default="cifar10 is downloaded",
            metavar="DIR",
        ),
    ] = None
    size: Annotated[
        int | None,
        _setting("--size", help="Side of the images of task images, in pixels.", default="32"),
    ] = None
    grayscale: Annotated[
        bool | None,
        _setting(
            "--grayscale/--colour", help="Images of task images in one channel.", default="colour"
        ),
    ] = None
    fraction: Annotated[
        float | None,
        _setting(
            "--fraction",
            help="Share of the training images, above 0, at most 1.",
            default="1",
        ),
    ] = None
    model: Annotated[
        str | None,
        _setting(
            "--model",
            help="lenet, lstm, mlp, nfnet, plain, resnet18, resnet9, vit or a plugin's; with "
            "settings: 'mlp(width=256)'.",
            default="lenet",
            metavar="NAME",
        ),
    ] = None
    dropout: Annotated[
        float | None,
        _setting(
            "--dropout",
            help="Share of activations dropped, 0 to 1, for models that have dropout.",
            default="0",
            metavar="P",
        ),
    ] = None
    optimizer: Annotated[
        str | None,
        _setting(
            "--optimizer",
            help="sgd, adam, adamw, rmsprop, adagrad or muon.",
            default="sgd; adam for cifar10; each other task its own",
            metavar="NAME",
        ),
    ] = None
    lr: Annotated[
        float | None,
        _setting(
            "--lr",
            help="Learning rate.",
            default="0.15; 0.001 for cifar10; the optimizer's where another is chosen",
        ),
    ] = None
    momentum: Annotated[
        float | None,
        _setting(
            "--momentum",
            help="Momentum, for sgd, rmsprop and muon.",
            default="0.9 of sgd, 0 of rmsprop, 0.95 of muon",
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        _setting(
            "--weight-decay",
            help="Weight decay.",
            default="0",
        ),
    ] = None
    schedule: Annotated[
        str | None,
        _setting(
            "--schedule",
            help="Learning rate over time: constant, cosine or onecycle.",
            default="constant",
            metavar="NAME",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        _setting(
            "--batch-size",
            help="Examples a batch.",
            default="32; 128 for cifar10; each other task its own",
        ),
    ] = None
    accumulate: Annotated[
        int | None,
        _setting(
            "--accumulate",
            help="Batches a step; clipped once, on their sum.",
            default="1",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        _setting(
            "--epochs",
            help="Passes over the data.",
            default="5; 10 for cifar10; each other task its own",
        ),
    ] = None
    augment: Annotated[
        bool | None,
        _setting(
            "--augment/--no-augment",
            help="Random flips and crops.",
            default="no; yes for cifar10",
        ),
    ] = None
    normalize: Annotated[
        str | None,
        _setting(
            "--normalize",
            help="standard (by the training images) or half (.5 and .5).",
            default="standard",
            metavar="NAME",
        ),
    ] = None
    precision: Annotated[
        str | None,
        _setting(
            "--precision",
            help="fp32 or bf16.",
            default="fp32",
            metavar="NAME",
        ),
    ] = None
    label_noise: Annotated[
        float | None,
        _setting(
            "--label-noise",
            help="Share of wrong training labels, 0 to 1.",
            default="0",
        ),
    ] = None
    gradient_noise: Annotated[
        float | None,
        _setting(
            "--gradient-noise",
            help="Heavy-tailed noise on gradients, times their RMS.",
            default="0",
        ),
    ] = None
    spikes: Annotated[
        float | None,
        _setting(
            "--spikes",
            help="Chance of a step with 1000-fold gradients.",
            default="0",
        ),
    ] = None

    watch: Annotated[
        str | None,
        _setting(
            "--watch",
            help="layer keeps each layer's gradient norm over time, before and after clipping: "
            "where gradients vanish or explode, in words and as the figure layers.",
            default="nothing",
            metavar="layer",
        ),
    ] = None

    def config(self, **more: Any) -> RunConfig:
        """The config these options ask for; `more` are fields that other options set."""
        from gclip.training import recipes, task_defaults

        task = self._task()
        start = task_defaults(task or "digits") if self.recipe is None else recipes[self.recipe]
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _NO_FIELDS and getattr(self, field.name) is not None
        }
        if task is not None:
            given["task"] = task
        return start.replace(**{**given, **more})

    def _task(self) -> str | None:
        """The task, with the options that are its own as its fields."""
        own = {}
        if self.size is not None:
            own["size"] = str(self.size)
        if self.grayscale is not None:
            own["channels"] = "1" if self.grayscale else "3"
        if not own:
            return self.task
        if self.task != "images":
            raise UsageError(
                f"--size and --grayscale belong to --task images, but got --task "
                f"{self.task or 'digits'}"
            )
        return f"images({', '.join(f'{name}={value}' for name, value in own.items())})"


_NO_FIELDS = ("recipe", "data", "task", "size", "grayscale")
"""Options that are no fields of a config by themselves."""
