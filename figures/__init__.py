"""Figures of a store: one file of this folder is one figure.

A figure is a module with ``draw(results: Results) -> Figure`` and a docstring that says what it
shows. Drop the file here, or name it with ``--plugin`` (`add`), and it is listed, drawn and saved
with the others. Files whose names start with an underscore are helpers. One that not all runs have
anything for says so with ``applies(results: Results) -> bool``, and is left out where it does not.
One that is broken does not keep the others from being drawn. ``USUAL = False`` leaves one to
``gclip figures``: a comparison draws the others alone.

Each draws into a place of yours, too, in your own style: a figure of one panel into an ``Axes``,
one of several into a ``Figure`` or ``SubFigure``::

    results = gclip.results.Results.read("runs")
    gclip.figures.scores.draw(results, ax=ax)
    gclip.figures.norms.draw(results, figure=subfigure)

Without a place it is laid out for one column of a paper; for other pages::

    with gclip.figures.on_page("slides"):
        figure = gclip.figures.scores.draw(results)
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gclip.core.source_location import place_in, told
from gclip.errors import UsageError, choose

from ._found import EARLIER, FigureWarning, module_of, names
from ._found import add as add
from ._found import add_if_figure as add_if_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gclip.results import Results, Store
    from gclip.survey.suggestions import Suggestions

    from ._groups import Group
    from ._page import on_page as on_page

# What each format would otherwise say about the moment and the machine that drew it.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)

__all__ = [
    *("FORMATS", "FigureWarning", "add", "add_if_figure", "applies", "describe", "draw"),
    *("draw_all", "draw_survey", "groups", "image_of", "is_usual", "names", "on_page", "save"),
]


def describe(name: str) -> str:
    """The first line of a figure's docstring.

    Raises:
        UsageError: an unknown name.
    """
    text = module_of(name).__doc__ or ""
    return text.strip().partition("\n")[0]


def draw(
    name: str,
    results: Results,
    *,
    style: str = "paper",
    width: str | float | None = None,
    title: bool = True,
) -> Figure:
    """Draw one figure, of the runs that finished or diverged.

    Args:
        name: one of `names`.
        results: the runs: ``gclip.results.Results.read("runs")``.
        style: ``paper``, ``slides`` or ``dark``.
        width: ``column`` (8.5 cm), ``page`` (17.8 cm), a length such as ``3.25in``, or inches; by
            default one column on paper, else ten inches.
        title: whether it has a title, and the paragraph that explains it.

    Raises:
        UsageError: an unknown name, style or width, or nothing that the figure could show.
    """
    from ._page import on_page
    from ._style import of_results

    scored = results.scored()
    if not any(map(len, (scored.runs, scored.trials, scored.table))):
        raise UsageError("no run is finished yet, so there is nothing to draw")
    with on_page(style, width, title):
        return cast("Figure", of_results(module_of(name).draw)(scored))


def is_usual(name: str) -> bool:
    """Whether a comparison draws a figure by itself; the others are drawn when they are asked for.

    Raises:
        UsageError: an unknown name.
    """
    return bool(getattr(module_of(name), "USUAL", True))


def applies(name: str, results: Results) -> bool:
    """Whether a figure has anything to show of these runs.

    Raises:
        UsageError: an unknown name.
    """
    asked = getattr(module_of(name), "applies", None)
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
    from ._page import on_page
    from ._survey import draw

    with on_page(width="page"):
        return draw(norms, suggestions, setting)


def __getattr__(name: str) -> Any:
    """``figures.scores``: every figure's module, loaded when it is first named."""
    if name == "on_page":
        from ._page import on_page

        return on_page
    if not name.startswith("_") and EARLIER.get(name, name) in names():
        return module_of(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *names(), "on_page"})


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int | None = None) -> Path:
    """Save a figure in the format of its suffix; equal figures give equal bytes.

    Args:
        figure: what `draw` gives, or any other of matplotlib's.
        path: the file; its folder is made. The suffix is one of `FORMATS`.
        dpi: pixels an inch of a PNG, and of maps in an SVG or PDF; 300 by default.

    Returns:
        The path.

    Raises:
        UsageError: another format or resolution, or a file that cannot be written.
    """
    target = Path(path)
    image = image_of(figure, target.suffix.removeprefix("."), dpi=dpi)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(image)
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UsageError(
            f"cannot write the figure '{target}': {error.strerror}; choose another folder"
        ) from error
    return target


def image_of(figure: Figure, kind: str, *, dpi: int | None = None) -> bytes:
    """A figure as the bytes of a file.

    Args:
        figure: what `draw` gives, or any other of matplotlib's.
        kind: of `FORMATS`.
        dpi: as in `save`.

    Raises:
        UsageError: another format or resolution.
    """
    from ._page import check_dpi, theme
    from ._style import laid_out

    choose(kind, FORMATS, "figure format")
    image = io.BytesIO()
    with theme(), laid_out(figure):
        figure.savefig(image, format=kind, metadata=_METADATA[kind], dpi=check_dpi(dpi))
    return image.getvalue()


def draw_all(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    formats: Iterable[str] = ("png", "svg"),
    keys: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    strategies: Sequence[str] | None = None,
    style: str = "paper",
    width: str | float | None = None,
    dpi: int | None = None,
    title: bool = True,
    usual: bool = False,
) -> list[Path]:
    """Draw every figure of a store.

    Without `keys`, a store with several experiments (other tasks, other learning rates …) gives a
    folder for each, and so does each study; single runs are then left out, and of runs that differ
    only in their strategy's code the newest is drawn. A figure whose file raises is left out with a
    `FigureWarning` that names its line; one that has nothing to show of these runs is left out,
    too.

    Args:
        store: the store, or its folder.
        out: the folder for the files; it is made.
        formats: of `FORMATS`.
        keys: exactly these runs are drawn together, as one comparison.
        only: names of figures, where not all are to be drawn.
        strategies: spellings, or names that stand for all their spellings; all by default.
        style, width, title: as in `draw`.
        dpi: as in `save`.
        usual: only those figures that a comparison draws by itself.

    Returns:
        The files.

    Raises:
        UsageError: an unknown figure, format, style or width; a store that is missing or has no
            finished run; or no figure could be drawn.
    """
    from ._page import check_dpi, on_page

    asked = names() if only is None else [EARLIER.get(name, name) for name in only]
    chosen = [choose(name, names(), "figure") for name in asked]
    if usual:
        chosen = [name for name in chosen if is_usual(name)]
    kinds = [choose(kind, FORMATS, "figure format") for kind in formats]
    check_dpi(dpi)
    files: list[Path] = []
    broken: dict[str, str] = {}
    with on_page(style, width, title):
        for folder, results in _parts(store, keys, strategies, None if only is None else chosen):
            for name in chosen:
                try:
                    if not applies(name, results):
                        continue
                    figure = draw(name, results, style=style, width=width, title=title)
                except UsageError:
                    raise
                except (Exception, SystemExit) as error:
                    broken[name] = _broken(name, error)
                    continue
                files += [
                    save(figure, Path(out, folder, f"{name}.{kind}"), dpi=dpi) for kind in kinds
                ]
    for sentence in broken.values():
        if not files:
            raise UsageError(sentence)
        warnings.warn(f"{sentence}; the others are drawn", FigureWarning, stacklevel=2)
    return files


def groups(store: Store | str | os.PathLike[str]) -> list[Group]:
    """What belongs together in a store: its comparisons, and its studies.

    Raises:
        UsageError: the store is missing, or has nothing that belongs together.
    """
    from gclip.results import Store, load
    from gclip.results.comparable import scored_runs

    from . import _groups

    opened = store if isinstance(store, Store) else Store(store)
    found = _groups.groups(opened, scored_runs(load(opened)))
    if not found:
        raise UsageError(f"no run in '{opened.path}' is finished: nothing to draw")
    return found


def _parts(
    store: Store | str | os.PathLike[str],
    keys: Iterable[str] | None,
    strategies: Sequence[str] | None,
    only: Sequence[str] | None,
) -> Iterable[tuple[str, Results]]:
    """What is drawn together, each with its folder.

    Each is read by itself: the blocks of steps are as long as its longest run demands.
    """
    from gclip.results import Results, Store

    from ._groups import only_strategies

    opened = store if isinstance(store, Store) else Store(store)
    if keys is not None:
        parts = [("", Results.read(opened, keys))]
        if parts[0][1].scored().runs.empty:
            raise UsageError(f"no run in '{opened.path}' is finished: nothing to draw")
    else:
        parts = [(group.folder, group.read(opened)) for group in groups(opened)]
    if strategies:
        known = sorted({text for _, part in parts for text in part.strategies})
        parts = [(folder, only_strategies(part, strategies)) for folder, part in parts]
        for name in strategies:
            if not any(name in (text, text.partition("(")[0]) for text in known):
                choose(name, known, "strategy of these runs")
        parts = [(f, p) for f, p in parts if len(p.runs) or len(p.trials) or len(p.table)]
    for name in only or ():
        if not any(applies(name, part) for _, part in parts):
            draw(name, parts[0][1])  # which says why it has nothing to show
    return parts


def _broken(name: str, error: BaseException) -> str:
    """What is wrong with a figure's file, in a sentence."""
    place = place_in(error, str(module_of(name).__file__))
    where = f" ({place})" if place else ""
    return f"the figure {name} cannot be drawn: {told(error)}{where}"
