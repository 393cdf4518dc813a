"""Options that several commands share, each written once.

A command takes a parameter annotated with one of the dataclasses here, under the decorator
`expand`, and on the command line every field of the dataclass is an option.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.core.launcher import launched, speaks
from gclip.core.numbers import bounded, shown
from gclip.errors import UsageError
from gclip.execution.execution import CHECKPOINT_EVERY, MOST_SEEDS, read_seconds
from gclip.text.export import TEXT, checked

if TYPE_CHECKING:
    from gclip.execution.execution import Execution
    from gclip.training import Dataset, ProblemData, RunConfig

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
        help="Python file or module that registers strategies, problems or models; again for more.",
        show_default="none",
    ),
]
Player = Annotated[
    list[str] | None,
    typer.Option(
        "--player",
        metavar="NAME=STRATEGY",
        help="Where a task trains several networks: the strategy of this one; again for each.",
        show_default="the same for all",
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
TableFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Of the table: text, markdown, latex or csv, which has every column, in numbers.",
    ),
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Draw no figures.")]
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


def _place(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=_PLACE)


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

    def execution(self, workers: int | None, fleet: int | str | None) -> Execution:
        """How runs are trained here; without a word about fleets, their size is measured."""
        from gclip.execution.execution import Execution

        return Execution(
            workers=workers,
            device=self.device,
            threads=self.threads,
            fleet="auto" if fleet is None else fleet,
        )

    def alone(self, *, instead: str = ", with --workers {size}") -> None:
        """Refuse to be one of several processes that torchrun has started: each would do all of it.

        Args:
            instead: how to have several runs at a time; "" where there is no way.

        Raises:
            UsageError: in the first process; the others end without a word.
        """
        found = launched()
        if found is None:
            return
        if not speaks():
            raise typer.Exit(2)
        raise UsageError(
            f"torchrun has started this command {found[1]} times (RANK and WORLD_SIZE), but it "
            "trains many runs, each in one process, and only gclip train shares a run out to "
            f"several; start it once, without torchrun{instead.format(size=found[1])}"
        )


@dataclass(frozen=True, kw_only=True)
class KeptPlace(Place):
    """On what the runs are trained, where they are kept, and how often while they train."""

    checkpoint_every: Annotated[
        str,
        _place(
            "--checkpoint-every",
            help="Seconds of training between two checkpoints in STORE/checkpoints, and before the "
            "first: the same command goes on from there. 0 is every epoch, off is never.",
            metavar="SECONDS|off",
        ),
    ] = f"{CHECKPOINT_EVERY:g}"

    @property
    def checkpoint_seconds(self) -> float | None:
        """What ``--checkpoint-every`` says; None for off."""
        try:
            return read_seconds(self.checkpoint_every)
        except UsageError:
            raise UsageError(
                "--checkpoint-every takes seconds such as 60, 0 for every epoch, or off, but got "
                f"{shown(self.checkpoint_every)}"
            ) from None

    def execution(self, workers: int | None, fleet: int | str | None) -> Execution:
        """As of `Place`, with checkpoints."""
        how = super().execution(workers, fleet)
        return dataclasses.replace(how, checkpoint_every=self.checkpoint_seconds)


def expand(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` one option for every field of its parameters that are dataclasses."""
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not dataclasses.is_dataclass(kind):
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


def with_players(strategies: list[str] | None, players: list[str] | None) -> list[str] | None:
    """The strategies of ``-s``, and the one that ``--player`` puts together: ``players(…)``.

    Raises:
        UsageError: a player without a strategy, or one named twice.
    """
    named: dict[str, str] = {}
    for text in players or ():
        name, equals, strategy = (part.strip() for part in text.partition("="))
        if not (name and equals and strategy):
            raise UsageError(f"--player takes NAME=STRATEGY such as critic=norm, but got {text!r}")
        if name in named:
            raise UsageError(f"--player {name} is there twice; give each player one strategy")
        named[name] = strategy
    if not named:
        return strategies
    together = ", ".join(f"{name}={strategy}" for name, strategy in named.items())
    return [*(strategies or ()), f"players({together})"]


def load_plugins(plugins: list[str] | None) -> tuple[str, ...]:
    """Register what every `--plugin` brings, and return what workers must load too."""
    import gclip

    for plugin in plugins or ():
        gclip.load_plugins(plugin)
    return tuple(plugins or ())


def load_data(config: RunConfig, data: Path | None) -> tuple[RunConfig, Dataset | ProblemData]:
    """The data of `config`'s task, found before anything trains, and the config that names them.

    Raises:
        UsageError: the folder is missing or holds no such data, or there is no network.
    """
    from gclip.training.tasks import load_data as load_task_data

    dataset = load_task_data(config.task, data)
    return config.with_data(dataset), dataset


def check_format(format: str, json: bool) -> None:
    """`UsageError` for a table format that there is not, or beside ``--json``."""
    if checked(format) != TEXT and json:
        raise UsageError(f"--json and --format {format} are two formats; leave one out")


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"10"`` is the seeds 0 to 9; ``"0,1,5"`` are these three, and ``"5,"`` is the one."""
    try:
        if "," not in text:
            return tuple(range(bounded("--seeds", int(text), MOST_SEEDS)))
        return tuple(int(part) for part in text.split(",") if part.strip())
    except UsageError:
        raise
    except ValueError:
        raise UsageError(
            f"--seeds takes a count such as 10 or a list such as 0,1,5, but got {shown(text)}"
        ) from None
