"""Every figure, drawn once: what it says, that it can be read in print, and that nothing is cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gclip import figures
from gclip.errors import UsageError
from gclip.figures import _looks
from gclip.figures._page import WIDTHS
from gclip.results import Results
from tests.figures import made_up

STRATEGIES = ("none", "norm(max_norm=0.3)", "percentile")
OF_STUDIES: dict[str, Callable[[], Results]] = {
    "sensitivity": made_up.thresholds,
    "lr_ceiling": made_up.rates,
    "noise": made_up.disturbed,
    "overhead": made_up.costs,
    **dict.fromkeys(
        ("budget", "slices", "importances", "stability_map", "tuned"), made_up.searched
    ),
}


@pytest.fixture(scope="module")
def drawn(compared: Results) -> Callable[[str], tuple[Results, Figure]]:
    @cache
    def draw(name: str) -> tuple[Results, Figure]:
        results = OF_STUDIES[name]() if name in OF_STUDIES else compared
        return results, figures.draw(name, results)

    return draw


Drawn = Callable[[str], tuple[Results, Figure]]


def texts(figure: Any) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]


@pytest.mark.parametrize("name", figures.names())
def test_it_says_what_it_shows(name: str, drawn: Drawn) -> None:
    results, figure = drawn(name)
    assert figures.applies(name, results)
    said = " ".join(" ".join(text.get_text() for text in texts(figure)).split())
    shown = set(results.strategies or results.table["strategy"])
    if name == "limits":  # whose limit changes; why the others are not there is said
        assert "Left out: none (never clips), norm(max_norm=0.3) (a constant)" in said
    elif name in ("forest", "improvement"):
        shown.remove("none")
    elif name == "stability_map":
        shown = {"agc", "norm"}
    elif name in ("budget", "slices", "importances", "tuned"):
        shown = set(made_up.STRATEGIES)
    squeezed = said.replace(" ", "")
    assert all(text.replace(" ", "") in squeezed for text in shown), said
    if name != "overhead":
        assert "n = " in said
        assert "digits" in said or name == "slices"
    assert any(axes.has_data() for axes in figure.axes)


@pytest.mark.parametrize("name", figures.names())
def test_it_can_be_read_in_a_column_of_print_and_nothing_is_cut(name: str, drawn: Drawn) -> None:
    _, figure = drawn(name)
    assert figure.get_figwidth() == pytest.approx(WIDTHS["column"])
    whole = figure.bbox
    assert min(text.get_fontsize() for text in texts(figure)) >= 6
    around = (figure._suptitle, figure._supxlabel, figure._supylabel, *figure.legends)
    for part in (*figure.axes, *filter(None, around)):
        box = part.get_tightbbox() if hasattr(part, "get_tightbbox") else part.get_window_extent()
        assert box is not None
        assert whole.x0 - 2 <= box.x0, part
        assert box.x1 <= whole.x1 + 2, part
        assert whole.y0 - 2 <= box.y0, part
        assert box.y1 <= whole.y1 + 2, part
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.get_yticklabels() if t.get_text()]
        boxes.sort(key=lambda box: box.y0)
        assert all(a.y1 < b.y0 + 1 for a, b in itertools.pairwise(boxes)), "rows run together"
    if figure.legends:
        legend = figure.legends[0].get_window_extent()
        assert all(not legend.overlaps(a.get_window_extent()) for a in figure.axes)
        if figure._suptitle is not None:
            said = figure._suptitle.get_text().rstrip("\n").count("\n") + 1
            line = figure._suptitle.get_fontsize() * 1.2 * figure.dpi / 72
            assert legend.y1 <= whole.y1 - (said - 0.5) * line, "the legend is under the title"


@pytest.mark.parametrize("name", figures.names())
def test_a_strategy_has_its_colour(name: str, drawn: Drawn) -> None:
    results, figure = drawn(name)
    colours = {
        mpl.colors.to_hex(colour)
        for axes in figure.axes
        for part in (*axes.collections, *axes.lines, *axes.patches, axes.spines["top"])
        for getter in ("get_facecolor", "get_edgecolor", "get_color")
        if hasattr(part, getter)
        for colour in np.atleast_2d(mpl.colors.to_rgba_array(getattr(part, getter)()))[:4]
    }
    shown = [s for s in (*results.strategies, *results.trials.get("strategy", ())) if "(" not in s]
    for text in set(shown) - {"none"}:
        if name != "limits" or text == "percentile":
            assert _looks.look_of(text).colour in colours, text


def test_what_has_nothing_to_show_says_why(compared: Results) -> None:
    for name in OF_STUDIES:
        assert not figures.applies(name, compared)
        with pytest.raises(
            UsageError, match="gclip study|importances need|--sampler|--label-noise"
        ):
            figures.draw(name, compared)
    grid = made_up.thresholds()
    for name in ("forest", "ranks", "performance_profile", "improvement", "cost"):
        assert not figures.applies(name, grid)
        with pytest.raises(UsageError, match="compares at least"):
            figures.draw(name, grid)
    with pytest.raises(UsageError, match="nothing to draw"):
        figures.draw("scores", Results.nothing())


def test_a_plain_store_has_the_figures_of_grids_too() -> None:
    rows = made_up.thresholds().runs
    plain = rows.assign(
        strategy=[
            text if np.isnan(value) else f"{text}({made_up.FIELDS[text]}={value:g})"
            for text, value in zip(rows["strategy"], rows["value"], strict=True)
        ]
    ).drop(columns=["value", "threshold"])
    results = made_up.results(runs=plain)
    assert figures.applies("sensitivity", results)
    ours, studys = (figures.draw("sensitivity", each) for each in (results, made_up.thresholds()))
    assert [_lines(axes) for axes in ours.axes] == [_lines(axes) for axes in studys.axes]
    assert figures.applies(
        "lr_ceiling", made_up.results(runs=made_up.rates().runs.drop(columns="rate"))
    )


def _lines(axes: Any) -> list[list[float]]:
    return [np.asarray(line.get_xydata()).ravel().tolist() for line in axes.lines]


def test_pages_have_their_widths_sizes_and_grounds(compared: Results) -> None:
    wide = figures.draw("forest", compared, width="page")
    assert wide.get_figwidth() == pytest.approx(WIDTHS["page"])
    dark = figures.draw("forest", compared, style="dark", title=False)
    assert mpl.colors.to_hex(dark.get_facecolor()) == "#15181c"
    assert dark.get_figwidth() == 10
    assert min(text.get_fontsize() for text in texts(dark)) >= 12
    assert dark._suptitle is None
    assert dark._supxlabel is None
    assert figures.draw("forest", compared, width="90mm").get_figwidth() == pytest.approx(
        3.543, abs=0.001
    )
    for width in ("wide", "1in", "3", "900cm"):
        with pytest.raises(UsageError, match="a figure"):
            figures.draw("forest", compared, width=width)
    with pytest.raises(UsageError, match="unknown style 'darc'.*did you mean 'dark'"):
        figures.draw("forest", compared, style="darc")
    with pytest.raises(UsageError, match="dpi is 30 to 1200"):
        figures.image_of(wide, "png", dpi=1)


def test_svg_text_stays_text_and_pdf_has_no_date(compared: Results) -> None:
    figure = figures.draw("improvement", compared)
    svg = figures.image_of(figure, "svg")
    assert b"Probability of improvement" in svg
    pdf = figures.image_of(figure, "pdf")
    assert b"CreationDate" not in pdf
    assert pdf == figures.image_of(figures.draw("improvement", compared), "pdf")


def test_coinciding_strategies_are_named_together(compared: Results) -> None:
    twin = compared.runs[compared.runs["strategy"] == "percentile"]
    twin = twin.assign(strategy="zclip", key=twin["key"] + "x")
    curves = compared.curves[compared.curves["strategy"] == "percentile"]
    both = made_up.results(
        runs=pd.concat([compared.runs, twin], ignore_index=True),
        curves=pd.concat(
            [compared.curves, curves.assign(strategy="zclip", key=curves["key"] + "x")],
            ignore_index=True,
        ),
    )
    from gclip.figures._same import together

    assert together(compared) == ""
    assert "percentile and zclip" in together(both)
