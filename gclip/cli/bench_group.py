"""The group ``gclip bench``."""

from __future__ import annotations

from collections.abc import Sequence

from gclip.cli.app import App, app_of

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
    """The commands that `arguments` may mean."""
    said = "Measure gclip beside its peers on this machine, in a minute or so."
    return app_of(said, _MODULES, arguments)
