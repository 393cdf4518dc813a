"""Options that several commands share, each written once.

A command takes a parameter annotated with one of the dataclasses here, under the decorator
`expand`, and on the command line every field of the dataclass is an option.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training import Dataset, RunConfig

_SETTING = "What is trained"
_PLACE = "Where and how"

Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="STRATEGY",
        help='A name or a spelling such as "norm(max_norm=0.1)"; again for more.',
        show_default="all",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE|MODULE",
        help="Python file or module that registers strategies; again for more.",
        show_default="none",
    ),
]
Fleet = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        metavar="auto|off|N",
        help="Train up to N runs of one shape as one program; auto measures which N is the "
        "fastest. The last bits of a result depend on it; off gives those of gclip train.",
        show_default="auto",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
StoreFolder = Annotated[
    Path, typer.Option("--store", metavar="DIR", help="Folder that keeps the runs.")
]


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Runs at a time.",
        show_default="one a core, or one on a GPU",
    ),
]
FiguresFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for figures.",
        show_default="STORE/figures, in compare a folder of its own there",
    ),
]


def _setting(*names: str, help: str, default: str, metavar: str | None = None) -> Any:
    """An option whose default is the recipe's, or this one of the task's."""
    return typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=_SETTING, show_default=default
    )


def _place(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=_PLACE)


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
            help="digits (embedded) or cifar10.",
            default="digits",
            metavar="NAME",
        ),
    ] = None
    data: Annotated[
        Path | None,
        _setting(
            "--data",
            help="Folder of the images: cifar-10-batches-py, or class folders in train/ and test/.",
            default="cifar10 is downloaded",
            metavar="DIR",
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
            help="lenet, resnet9 or resnet18.",
            default="lenet",
            metavar="NAME",
        ),
    ] = None
    optimizer: Annotated[
        str | None,
        _setting(
            "--optimizer",
            help="sgd, adam, adamw, rmsprop or adagrad.",
            default="sgd; adam for cifar10",
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
            help="Momentum, for sgd and rmsprop.",
            default="0.9 of sgd, 0 of rmsprop",
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
            help="Images a batch.",
            default="32; 128 for cifar10",
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
            help="Passes over the images.",
            default="5; 10 for cifar10",
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

    def config(self, **more: Any) -> RunConfig:
        """The config these options ask for; `more` are fields that other options set."""
        from gclip.training import recipes, task_defaults

        if self.recipe is not None:
            start = recipes[self.recipe]
        else:
            start = task_defaults(self.task or "digits")
        chosen = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("recipe", "data") and getattr(self, field.name) is not None
        }
        return start.replace(**{**chosen, **more})


@dataclass(frozen=True, kw_only=True)
class Place:
    """On what the runs are trained, and where they are kept."""

    store: Annotated[Path, _place("--store", help="Folder that keeps the runs.", metavar="DIR")] = (
        Path("runs")
    )
    device: Annotated[str, _place("--device", help="auto, cpu, cuda or mps.", metavar="NAME")] = (
        "auto"
    )
    threads: Annotated[
        int,
        _place("--threads", help="Threads of each run; the last bits of a result depend on it."),
    ] = 1

    def alone(self) -> None:
        """`UsageError` where a launcher such as torchrun has started the command several times."""
        rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE", "")
        if rank is not None and size.isdecimal() and int(size) > 1:
            raise UsageError(
                f"gclip does not distribute a run over processes, but this is process {rank} of "
                f"{size} (RANK and WORLD_SIZE, as torchrun sets them), and all of them would train "
                "the same and write the same files; start the command once, without torchrun"
            )


def expand(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` one option for every field of its parameters that are `Setting` or `Place`."""
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, type[Setting] | type[Place]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if kind not in (Setting, Place):
            parameters.append(parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        fields = typing.get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=fields[field.name],
            )
            for field in dataclasses.fields(kind)
        ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in dataclasses.fields(kind)})
        return command(**values)

    del wrapped.__wrapped__  # or inspect would look through to the unexpanded signature
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def load_plugins(plugins: list[str] | None) -> tuple[str, ...]:
    """Register the strategies of every `--plugin`, and return what workers must load too."""
    import gclip

    for plugin in plugins or ():
        gclip.load_plugins(plugin)
    return tuple(plugins or ())


def load_data(config: RunConfig, data: Path | None) -> tuple[RunConfig, Dataset]:
    """The images of `config`'s task, found before anything trains, and the config that names them.

    Raises:
        UsageError: the folder is missing or holds no such data, or there is no network.
    """
    from gclip.training import load_dataset

    dataset = load_dataset(config.task, data)
    return config.with_data(dataset), dataset


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"10"`` is the seeds 0 to 9; ``"0,1,5"`` are these three, and ``"5,"`` is the one."""
    try:
        if "," not in text:
            count = int(text)
            if count < 1:
                raise ValueError
            return tuple(range(count))
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--seeds takes a count such as 10 or a list such as 0,1,5, but got {text!r}"
        ) from None
