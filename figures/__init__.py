"""Figures of a store: one file of this folder is one figure.

A figure is a module with ``draw(results: Results) -> Figure`` and a docstring that says what it
shows. Drop the file here and it is listed, drawn and saved with the others. Files whose names start
with an underscore are helpers. One that not all runs have anything for says so with
``applies(results: Results) -> bool``, and is left out where it does not. One that is broken does
not keep the others from being drawn.

Each draws into a place of yours, too, in your own style: a figure of one panel into an ``Axes``,
one of several into a ``Figure`` or ``SubFigure``::

    results = gclip.results.Results.read("runs")
    gclip.figures.scores.draw(results, ax=ax)
    gclip.figures.norms.draw(results, figure=subfigure)
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from gclip.core.source_location import place_in, told
from gclip.errors import UsageError, choose

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gclip.results import Results, Store
    from gclip.survey.suggestions import Suggestions

# What each format would otherwise say about the moment and the machine that drew it.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


class FigureWarning(UserWarning):
    """A figure could not be drawn, and was left out."""


_EARLIER = {"accuracy": "scores"}
"""Names that figures had before they drew any metric."""


def names() -> tuple[str, ...]:
    """All figures, by name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def describe(name: str) -> str:
    """The first line of a figure's docstring.

    Raises:
        UsageError: an unknown name.
    """
    text = _module(name).__doc__ or ""
    return text.strip().partition("\n")[0]


def draw(name: str, results: Results) -> Figure:
    """Draw one figure, of the runs that finished or diverged.

    Args:
        name: one of `names`.
        results: the runs: ``gclip.results.Results.read("runs")``.

    Raises:
        UsageError: an unknown name, or no such run.
    """
    from ._style import finished

    return cast("Figure", finished(_module(name).draw)(results))


def applies(name: str, results: Results) -> bool:
    """Whether a figure has anything to show of these runs; most always have.

    Raises:
        UsageError: an unknown name.
    """
    asked = getattr(_module(name), "applies", None)
    return asked is None or bool(asked(results))


def draw_survey(
    norms: Mapping[str, NDArray[np.floating]], suggestions: Suggestions, setting: str = ""
) -> Figure:
    """Draw what a `gclip.Survey` saw, and where the thresholds that it suggests lie.

    Args:
        norms: by scope, norms of groups, one entry for each step and group.
        suggestions: what `gclip.Survey.suggest` has found.
        setting: of what they are, under the title.
    """
    from ._survey import draw

    return draw(norms, suggestions, setting)


def _module(name: str) -> ModuleType:
    known = choose(_EARLIER.get(name, name), names(), "figure")
    return importlib.import_module(f"{__name__}.{known}")


def __getattr__(name: str) -> ModuleType:
    """``figures.scores``: every figure's module, loaded when it is first named."""
    if not name.startswith("_") and _EARLIER.get(name, name) in names():
        return _module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *names()})


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure in the format of its suffix; equal figures give equal bytes.

    Args:
        figure: what `draw` gives, or any other of matplotlib's.
        path: the file; its folder is made. The suffix is one of `FORMATS`.

    Returns:
        The path.

    Raises:
        UsageError: another format, or a file that cannot be written.
    """
    from ._style import theme

    target = Path(path)
    kind = choose(target.suffix.removeprefix("."), FORMATS, "figure format")
    image = io.BytesIO()
    with theme():
        figure.savefig(image, format=kind, metadata=_METADATA[kind])
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(image.getvalue())
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UsageError(
            f"cannot write the figure '{target}': {error.strerror}; choose another folder"
        ) from error
    return target


def draw_all(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    formats: Iterable[str] = ("png", "svg"),
    keys: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
) -> list[Path]:
    """Draw every figure of a store.

    Without `keys`, a store with several experiments (other tasks, other learning rates …) gives a
    folder for each; single runs, such as the trials of a study, are then left out, and of runs that
    differ only in their strategy's code the newest is drawn. A figure whose file raises is left out
    with a `FigureWarning` that names its line; one that has nothing to show of these runs is left
    out, too.

    Args:
        store: the store, or its folder.
        out: the folder for the files; it is made.
        formats: of `FORMATS`.
        keys: exactly these runs are drawn together, as one comparison.
        only: names of figures, where not all are to be drawn.

    Returns:
        The files.

    Raises:
        UsageError: an unknown figure or format; a store that is missing or has no finished run; or
            no figure could be drawn.
    """
    from gclip.results import Results, load
    from gclip.results.comparable import scored_runs

    asked = names() if only is None else [_EARLIER.get(name, name) for name in only]
    chosen = [choose(name, names(), "figure") for name in asked]
    kinds = [choose(kind, FORMATS, "figure format") for kind in formats]
    runs = scored_runs(load(store, keys))
    if runs.empty:
        raise UsageError(
            f"no run in '{getattr(store, 'path', store)}' is finished: nothing to draw"
        )
    parts = _experiments(runs) if keys is None else {"": runs}
    files = []
    broken: dict[str, str] = {}
    for folder, part in parts.items():
        # Each read by itself: the blocks of steps are as long as its longest run demands.
        results = Results.read(store, part["key"])
        for name in chosen:
            try:
                if only is None and not applies(name, results):
                    continue
                figure = draw(name, results)
            except UsageError:
                raise
            except (Exception, SystemExit) as error:
                broken[name] = _broken(name, error)
                continue
            files += [save(figure, Path(out, folder, f"{name}.{kind}")) for kind in kinds]
    for sentence in broken.values():
        if not files:
            raise UsageError(sentence)
        warnings.warn(f"{sentence}; the others are drawn", FigureWarning, stacklevel=2)
    return files


def _broken(name: str, error: BaseException) -> str:
    """What is wrong with a figure's file, in a sentence."""
    place = place_in(error, str(Path(__file__).parent / f"{name}.py"))
    where = f" ({place})" if place else ""
    return f"the figure {name} cannot be drawn: {told(error)}{where}"


def _experiments(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The experiments worth a figure, by the name of their folder."""
    from gclip.results import experiments, newest

    every = experiments(newest(runs))
    compared = {name: rows for name, rows in every.items() if len(rows) > 1}
    if not compared:
        if len(every) > 1:
            raise UsageError(
                f"the {len(every)} finished runs all differ in more than strategy and seed: "
                "there is nothing to compare in a figure"
            )
        return {"": runs}
    if len(compared) < len(every):
        warnings.warn(
            f"{len(every) - len(compared)} runs of other settings stand alone and are not drawn",
            stacklevel=3,
        )
    if len(compared) == 1:
        return {"": next(iter(compared.values()))}
    return {name.replace(" ", ",").replace("/", "-"): rows for name, rows in compared.items()}
