"""What is registered, described: as it was kept, or as it is worked out now, which takes torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gclip.core.kept import KeptAnswer
from gclip.describe.facts import KINDS
from gclip.text.progress import load

if TYPE_CHECKING:
    from gclip.describe.facts import Facts

_NAMES = "names"
_QUICK = ("strategy", "problem")
"""Of these all are described when one is; models are built to see what inputs they take."""


class Descriptions:
    """Made before anything is loaded: what is registered by then, and plugins, are not kept."""

    def __init__(self, plugins: list[str] | None) -> None:
        self._plugins = plugins
        self._kept = {} if plugins else {each: KeptAnswer(each) for each in (*KINDS, _NAMES)}

    def everything(self, kind: str) -> list[Facts]:
        """All that is registered of a kind, in the order of its names."""
        found = self._recall(kind)
        if found is None:
            self.load()
            found = self._keep_all(kind)
        if found is None:
            from gclip.cli.named import names_of
            from gclip.describe.facts import listed_of

            return [listed_of(kind, name) for name in names_of(kind)]
        return list(found.values())

    def recalled(self, text: str) -> tuple[str, Facts] | None:
        """The kind of what a plain name means, and its facts as they were kept; None if they are
        not, or if it is the name of several things: whoever loads them says so."""
        names = self._recall(_NAMES)
        kinds = [kind for kind in KINDS if names is not None and text in names[kind]]
        found = self._recall(kinds[0]) if len(kinds) == 1 else None
        return None if found is None or names is None else (
            kinds[0], found[names[kinds[0]][text]]
        )  # fmt: skip

    def load(self) -> None:
        """Load torch and the plugins."""
        load("torch")
        from gclip.cli.options import load_plugins

        load_plugins(self._plugins)

    def keep_for_next_time(self, kind: str) -> None:
        """Describe all of a kind once one of it was shown, where that is quick."""
        if kind in _QUICK:
            self._keep_all(kind)

    def _recall(self, name: str) -> dict[str, Any] | None:
        kept = self._kept.get(name)
        return None if kept is None else kept.recall()

    def _keep_all(self, kind: str) -> dict[str, Facts] | None:
        """The facts of all of a kind, kept; None where they may not be."""
        kept = self._kept.get(kind)
        if kept is None or not kept.possible:
            return None
        from gclip.cli.named import names_of
        from gclip.describe.facts import facts_of

        found = {name: facts_of(kind, name) for name in names_of(kind)}
        kept.keep(found)
        self._kept[_NAMES].keep(_all_names())
        return found


def _all_names() -> dict[str, dict[str, str]]:
    """By kind: all that something is called, and its name."""
    import gclip
    from gclip.cli.named import names_of

    names = {kind: {name: name for name in names_of(kind)} for kind in KINDS}
    for name in list(names["strategy"]):
        names["strategy"].update(dict.fromkeys(gclip.get(name).aliases, name))
    return names
