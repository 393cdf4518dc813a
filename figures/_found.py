"""Which figures are there? The files of this folder, and those that a plugin adds."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from gclip.core.plugins import import_plugin, registered_by
from gclip.errors import UsageError, choose

PACKAGE = __name__.rpartition(".")[0]
EARLIER = {"accuracy": "scores"}
"""Names that figures had before they drew any metric."""
_added: dict[str, ModuleType] = {}


class FigureWarning(UserWarning):
    """Something could not be drawn, and was left out."""


def names() -> tuple[str, ...]:
    """All figures, by name."""
    folder = importlib.import_module(PACKAGE).__path__
    shipped = (module.name for module in pkgutil.iter_modules(folder))
    return tuple(sorted({*(name for name in shipped if not name.startswith("_")), *_added}))


def module_of(name: str) -> ModuleType:
    """The file of a figure.

    Raises:
        UsageError: an unknown name.
    """
    known = choose(EARLIER.get(name, name), names(), "figure")
    return _added.get(known) or importlib.import_module(f"{PACKAGE}.{known}")


def add(source: str | Path) -> str:
    """Add a figure from elsewhere: a Python file, or a module that Python can import, with
    ``draw(results)`` and a docstring that says what it shows.

    Its name is the file's. Whatever strategies it registers are known from then on, too.

    Args:
        source: ``"my_figure.py"`` or ``"my.module"``.

    Returns:
        The figure's name.

    Raises:
        UsageError: it does not load, has no ``draw``, or takes the name of one that ships.

    Example::

        gclip.figures.add("my_figure.py")
        gclip.figures.draw("my_figure", results)
    """
    module = import_plugin(source)
    if not callable(getattr(module, "draw", None)):
        raise UsageError(
            f"the plugin {str(source)!r} has no figure: it needs draw(results), which returns a "
            "matplotlib figure"
        )
    return _add(source, module)


def add_if_figure(source: str | Path) -> str | None:
    """As `add`, of a plugin that may have something else to offer, such as strategies.

    Returns:
        The figure's name; None where it has none.

    Raises:
        UsageError: it does not load, or offers nothing at all.
    """
    module = import_plugin(source)
    if callable(getattr(module, "draw", None)):
        return _add(source, module)
    if not any(registered_by(module.__name__).values()):
        raise UsageError(
            f"the plugin {str(source)!r} has no figure, draw(results), and registers no strategy, "
            "problem or model"
        )
    return None


def _add(source: str | Path, module: ModuleType) -> str:
    text = str(source)
    name = Path(text).stem if text.endswith(".py") else text.rpartition(".")[2]
    folder = importlib.import_module(PACKAGE).__path__
    if name in {each.name for each in pkgutil.iter_modules(folder)}:
        raise UsageError(f"a figure {name} ships with gclip; give the file {text!r} another name")
    _added[name] = module
    return name
