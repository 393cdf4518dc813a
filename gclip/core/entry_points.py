"""Plugins of installed packages, by entry point: one that is broken stops none of the others."""

from __future__ import annotations

import importlib.metadata
import warnings


class PluginWarning(UserWarning):
    """An installed plugin is left out; the sentence names it and says why."""


def load_installed(group: str) -> None:
    """Import whatever installed packages declare in a group, and warn of what cannot be."""
    for point in importlib.metadata.entry_points(group=group):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # a script, imported, may end the program
            ends = " (it ends the program)" if isinstance(error, SystemExit) else ""
            said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
            warnings.warn(
                f"the installed plugin {point.name!r} ({point.value}, in {group}) does not load "
                f"and is left out: {said}{ends}",
                PluginWarning,
                stacklevel=2,
            )
