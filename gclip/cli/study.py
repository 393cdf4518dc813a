"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from gclip.cli.app import App

_MODULES = {
    "study_run": ("run",),
    "study_list": ("list",),
    "study_work": ("create", "work"),
    "study_report": ("report", "show", "export"),
}
"""The commands of each module, in the order of the help."""


def app_for(arguments: Sequence[str]) -> App:
    """The commands that `arguments` may mean: those beside the one that they begin with, or all."""
    app = App(no_args_is_help=True, help="Tune strategies with Optuna, and look at studies.")
    asked = [m for m, names in _MODULES.items() if set(arguments[:1]) & set(names)]
    for module in asked or _MODULES:
        importlib.import_module(f"gclip.cli.{module}").add_to(app)
    return app
