"""The groups of commands, of which only those are loaded that are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

from gclip.cli.app import App

_COMMANDS = {
    "train": "train",
    "compare": "compare",
    "figures": "figures",
    "report": "report",
    "list": "listing",
    "show": "show",
    "check": "check",
    "survey": "survey",
    "doctor": "doctor",
    "env": "env",
}
"""The module of each, in the order of the help."""
_GROUPS = {"study": "study", "paper": "paper", "store": "store", "bench": "bench_group"}


def whole() -> App:
    """All commands."""
    return _app([*_COMMANDS, *_GROUPS])


def app_for(arguments: Sequence[str]) -> App:
    """The commands that `arguments` may mean: the one that they begin with, or all."""
    named = [name for name in (*_COMMANDS, *_GROUPS) if [name] == list(arguments[:1])]
    return _app(named, arguments[1:2]) if named else whole()


def _app(names: Sequence[str], inner: Sequence[str] = ()) -> App:
    app = App(
        name="gclip",
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(root)
    for name in names:
        module = importlib.import_module(f"gclip.cli.{_COMMANDS.get(name) or _GROUPS[name]}")
        if name in _GROUPS:
            app.add_typer(module.app_for(inner), name=name)
        else:
            module.add_to(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"gclip {version('gclip')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show the whole traceback of an unexpected error."),
    ] = False,
) -> None:
    """Compare gradient clipping strategies, tune them, and see what they do.

    \b
    gclip list                                  what strategies there are
    gclip show agc                              one of them: fields, paper
    gclip compare -s none -s norm -s agc        side by side, in seconds
    gclip train -s "norm(max_norm=0.1)"         one run
    gclip survey                                a threshold to start from
    gclip figures --list                        what can be drawn of a store
    gclip report                                a store as a page that people read
    gclip study run thresholds --strategy agc   tune it
    gclip check my_strategies.py                a strategy of yours
    gclip store check                           whether all results are whole
    gclip doctor train.py                       what is wrong with a loop's clipping
    gclip env                                   versions, for a bug report
    """
