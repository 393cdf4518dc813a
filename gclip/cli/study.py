"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

from collections.abc import Sequence

from gclip.cli.app import App, app_of

_MODULES = {
    "study_run": ("run",),
    "study_list": ("list",),
    "study_work": ("create", "work"),
    "study_report": ("report", "show", "export"),
}
"""The commands of each module, in the order of the help."""


def app_for(arguments: Sequence[str]) -> App:
    """The commands that `arguments` may mean."""
    return app_of("Tune strategies with Optuna, and look at studies.", _MODULES, arguments)
