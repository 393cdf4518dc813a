"""How a study searches, on the command line: an option for each of `gclip.tuning.options`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gclip.cli.options import parse_seeds
from gclip.errors import UsageError
from gclip.tuning.options import (
    FLAG,
    NAME,
    OBJECTIVES,
    RANGE,
    SEEDS,
    SPACE,
    WHOLE,
    Option,
    OptionKind,
    options_of,
)

FLAGS = {name: option.flag for name, option in options_of().items() if option.studies}
"""Fields of a request that not every study uses, and the options that set them."""


def parse_lr_range(text: str) -> tuple[float, float]:
    """``"0.001,0.5"`` as two numbers."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--lr-range takes LOW,HIGH such as 0.001,0.5, but got {text!r}") from None
    return low, high


def _parse_space(items: list[str]) -> dict[str, str]:
    from gclip.tuning.space import parse_space

    return parse_space(items)


_TYPES: dict[OptionKind, tuple[Any, Callable[[Any], Any]]] = {
    WHOLE: (int, int),
    NAME: (str, str),
    FLAG: (bool, bool),
    SEEDS: (str, parse_seeds),
    RANGE: (str, parse_lr_range),
    SPACE: (list[str], _parse_space),
    OBJECTIVES: (list[str], tuple),
}
"""What typer reads for each kind of option, and what it is made of it."""


def _parameter(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")


def _declared(option: Option) -> Any:
    help_text = f"{option.help} For {option.studies}." if option.studies else option.help
    return Annotated[
        _TYPES[option.kind][0] | None,
        typer.Option(
            option.flag,
            help=help_text,
            metavar=option.metavar,
            rich_help_panel="How it searches",
            show_default=option.usual,
        ),
    ]


_Fields: Any = dataclasses.make_dataclass(
    "_Fields",
    [
        (_parameter(option), _declared(option), dataclasses.field(default=None))
        for option in options_of().values()
    ],
    frozen=True,
    kw_only=True,
)


class Search(_Fields):  # type: ignore[misc]
    """How a study searches; None where an option is left out."""

    def given(self) -> dict[str, Any]:
        """The options that were given, as fields of a `gclip.tuning.study.Request`."""
        given = {}
        for name, option in options_of().items():
            value = getattr(self, _parameter(option))
            # An option that may be repeated is an empty list where it is left out.
            if value is not None and value != [] and value is not False:
                given[name] = _TYPES[option.kind][1](value)
        return given
