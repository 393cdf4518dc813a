"""The group ``gclip bench``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from gclip.cli.app import App

_MODULES = {
    "bench": ("clip", "data", "train", "fleet", "strategies"),
    "bench_loop": ("loop",),
    "bench_store": ("store",),
    "bench_study": ("study",),
    "bench_growth": ("growth",),
    "bench_all": ("all",),
}
"""The commands of each module, in the order of the help."""


def app_for(arguments: Sequence[str]) -> App:
    """The commands that `arguments` may mean: those beside the one that they begin with, or all."""
    app = App(
        no_args_is_help=True,
        help="Measure gclip beside its peers on this machine, in a minute or so.",
    )
    asked = [m for m, names in _MODULES.items() if set(arguments[:1]) & set(names)]
    for module in asked or _MODULES:
        importlib.import_module(f"gclip.cli.{module}").add_to(app)
    return app
