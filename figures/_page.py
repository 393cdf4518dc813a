"""For which page is a figure drawn? Its width, the size of its text, light or dark.

Text has two sizes, of which the smaller is 6.25 points on paper: a figure is laid out at the width
that it will have in print, one column (8.5 cm) unless told otherwise, so that nothing is scaled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import seaborn as sns

from gclip.core.numbers import shown
from gclip.errors import UsageError, choose

CENTIMETRE = 1 / 2.54
WIDTHS = {"column": 8.5 * CENTIMETRE, "page": 17.8 * CENTIMETRE}
"""Inches: of one column of a paper, and of the text of a page."""
UNITS = {"in": 1.0, "cm": CENTIMETRE, "mm": CENTIMETRE / 10}
NARROWEST, WIDEST = 2.5, 60.0
DPI = 300
LOWEST_DPI, HIGHEST_DPI = 30, 1200
PAPER = 7.5
"""Points of a paper's text."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a figure is for.

    Attributes:
        text: points of titles and labels; what is smaller has five sixths of that.
        width: inches, unless told otherwise.
        ground, ink, soft, faint, grid, edge: colours of the ground, of text, of captions, of what
            is in the background, of the grid, of the panels' frames.
    """

    text: float
    width: float
    ground: str = "#ffffff"
    ink: str = "#303030"
    soft: str = "#5c5c5c"
    faint: str = "#c8c8c8"
    grid: str = "#e4e4e4"
    edge: str = "#a6a6a6"


STYLES = {
    "paper": Style(text=PAPER, width=WIDTHS["column"]),
    "slides": Style(text=15.0, width=10.0),
    "dark": Style(
        text=15.0, width=10.0, ground="#15181c", ink="#ececec", soft="#b4bac2", faint="#565d66",
        grid="#2e343b", edge="#6a727c",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Page:
    """Where figures are drawn for now.

    Attributes:
        style: of `STYLES`.
        width: inches.
        titled: whether a figure has its title above and the paragraph that explains it below.
    """

    style: Style = STYLES["paper"]
    width: float = STYLES["paper"].width
    titled: bool = True

    @property
    def scale(self) -> float:
        """How many times larger than on paper."""
        return self.style.text / PAPER


_PAGE: ContextVar[Page] = ContextVar("_PAGE", default=Page())  # noqa: B039 - it is frozen


def page() -> Page:
    """The page of now."""
    return _PAGE.get()


@contextmanager
def on_page(
    style: str = "paper", width: str | float | None = None, title: bool = True
) -> Iterator[Page]:
    """Within the ``with`` block figures are drawn for another page.

    Args:
        style: ``paper``, ``slides`` or ``dark``.
        width: ``column`` (8.5 cm), ``page`` (17.8 cm), a length such as ``3.25in``, or inches; by
            default one column on paper, else ten inches.
        title: whether figures have a title, and the paragraph that explains them.

    Raises:
        UsageError: another style, or no such width.
    """
    kind = STYLES[choose(style, tuple(STYLES), "style")]
    inches = kind.width if width is None else inches_of(width)
    token = _PAGE.set(Page(style=kind, width=inches, titled=title))
    try:
        yield page()
    finally:
        _PAGE.reset(token)


def inches_of(width: str | float) -> float:
    """``column``, ``page``, ``3.25in``, ``8.5cm`` or ``85mm`` in inches; a number is inches.

    Raises:
        UsageError: it is nothing of that, or narrower or wider than a figure can be.
    """
    if isinstance(width, str) and width in WIDTHS:
        return WIDTHS[width]
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(in|cm|mm)?\s*", str(width))
    if found is None or (isinstance(width, str) and found[2] is None):
        raise UsageError(
            f"a figure's width is column, page, or a length such as 3.25in, 8.5cm or 85mm, but got "
            f"{shown(width)}"
        )
    inches = float(found[1]) * UNITS[found[2] or "in"]
    if not NARROWEST <= inches <= WIDEST:
        raise UsageError(
            f"a figure is {NARROWEST:g} to {WIDEST:g} inches wide, but got {shown(width)}"
        )
    return inches


def check_dpi(dpi: int | None) -> int:
    """How many pixels an inch has; `DPI` for None.

    Raises:
        UsageError: too few to read, or too many to write.
    """
    if dpi is None:
        return DPI
    if not LOWEST_DPI <= dpi <= HIGHEST_DPI:
        raise UsageError(f"dpi is {LOWEST_DPI} to {HIGHEST_DPI}, but got {shown(dpi)}")
    return dpi


def settings() -> dict[str, Any]:
    """matplotlib's settings for the page of now, whatever the reader's own are."""
    style, scale = page().style, page().scale
    return {
        **sns.axes_style("whitegrid"),

            "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
            "font.size": style.text,
            **dict.fromkeys(("axes.titlesize", "axes.labelsize", "figure.titlesize"), "medium"),
            **dict.fromkeys(("figure.labelsize", "legend.title_fontsize"), "medium"),
            **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), "small"),
            "legend.frameon": False,
            "axes.linewidth": 0.7 * scale,
            "grid.linewidth": 0.6 * scale,
            "lines.linewidth": 1.1 * scale,
            "lines.markersize": 3.5 * scale,
            "patch.linewidth": 0.6 * scale,
            "hatch.linewidth": 0.6 * scale,
            "axes.titlepad": 4.0 * scale,
            "axes.labelpad": 3.0 * scale,
            **dict.fromkeys(("xtick.major.pad", "ytick.major.pad"), 2.5 * scale),
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), style.ink),
            **dict.fromkeys(("xtick.color", "ytick.color"), style.soft),
            **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), style.ink),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"),
                            style.ground),
            "axes.edgecolor": style.edge,
            "grid.color": style.grid,
            "savefig.dpi": DPI,
            "svg.hashsalt": "gclip",
            "svg.fonttype": "none",  # text stays text
            "pdf.fonttype": 42
        ,
    }  # fmt: skip


@contextmanager
def theme() -> Iterator[None]:
    """The style of the page, and only inside the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast("Any", settings()))
        yield
