"""How is a strategy drawn? One colour, marker and line style for good, in every figure.

The colour is its class's. A strategy as it comes has the marker and the line style of its class,
too; a spelling with settings has others, that follow from its text alone. So ``norm`` and
``norm(max_norm=0.1)`` look the same in every figure that shows them, whatever stands beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import to_hex, to_rgb

from ._page import page

# Wong (2011) and seaborn's "colorblind", without yellow (too pale for a line) and grey.
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00"),
    *("#56b4e9", "#8c5a2b", "#7a3db8", "#f08ac0"),
)
BASELINE = "#303030"
DASHES: tuple[Any, ...] = ("", (4, 1.5), (1, 1), (5, 1, 1, 1))
MARKERS = ("o", "s", "D", "^", "v", "P", "<", ">")
SHADES = (0.0, -0.28, 0.3)
"""Of a class's colour, for spellings with settings: as it is, darker, lighter."""

# The best known first, which are seen together most often: their colours differ. New strategies
# come to the end, or those after them would change.
ORDER = (
    *("norm", "agc", "percentile", "zclip", "value", "soft", "adagc", "spam", "normalized"),
    *("automatic", "per_sample", "clippy", "quantile_tracking", "adanorm", "spectral", "power"),
    *("cclip", "delta", "ema_ratio", "average_norm", "past_quantile", "median_window"),
    *("sigma_skip", "ratio_skip", "lognormal_skip", "block_rms", "update_rms", "larc", "aggc"),
    *("random", "stable_spam", "acclip"),
)
_SLOTS = len(PALETTE) * len(MARKERS) * len(DASHES)


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn, in every figure."""

    colour: str
    dash: Any
    marker: str

    @property
    def dashes(self) -> Any:
        """The line style as matplotlib's lines take it."""
        return (0, self.dash) if self.dash else "-"


def looks(strategies: Iterable[str]) -> dict[str, Look]:
    """The look of each strategy, by its spelling. ``none`` is the page's ink.

    Where two that are drawn together would look alike, the second in their order gets the next
    free one: that is so of very few, and only of spellings with settings and of plugins.
    """
    chosen = list(dict.fromkeys(strategies))
    taken: set[Look] = set()
    found: dict[str, Look] = {}
    # Those whose looks are fixed go first, so that none has to give way to another's settings.
    for text in sorted(chosen, key=lambda name: (name not in ("none", *ORDER), name)):
        for candidate in _candidates(text):
            if candidate not in taken:
                break
        taken.add(candidate)
        found[text] = candidate
    return {text: found[text] for text in chosen}


def look_of(strategy: str) -> Look:
    """The look of one strategy."""
    return next(iter(_candidates(strategy)))


def _candidates(text: str) -> Iterable[Look]:
    if text == "none":
        yield Look(page().style.ink, "", "o")
    name, _, settings = text.partition("(")
    place = ORDER.index(name) if name in ORDER else _free(name)
    if not settings and text != "none":
        yield _look(place)
    if name not in ORDER and not settings:
        for beyond in range(1, _SLOTS):
            yield _look(len(ORDER) + (place - len(ORDER) + beyond) % (_SLOTS - len(ORDER)))
    variants = len(SHADES) * len(MARKERS) * len(DASHES)
    first = _number(text)
    for beyond in range(variants):
        candidate = _look(place, 1 + (first + beyond) % variants)
        if candidate != _look(place):
            yield candidate


def _free(name: str) -> int:
    """The place of a class that does not ship, after those that do."""
    return len(ORDER) + _number(name) % (_SLOTS - len(ORDER))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _look(place: int, variant: int = 0) -> Look:
    turn, colour = divmod(place, len(PALETTE))
    # Nine colours and eight markers: a pair comes again after 72 places, then with another dash.
    again = place // (len(PALETTE) * len(MARKERS))
    marker, dash = place % len(MARKERS), turn + again
    shade = SHADES[variant % len(SHADES)]
    if variant:
        marker, dash = marker + variant // len(SHADES) + 1, dash + variant // 24 + 1
    return Look(
        on_ground(shaded(PALETTE[colour], shade)),
        DASHES[dash % len(DASHES)],
        MARKERS[marker % len(MARKERS)],
    )


def shaded(colour: str, by: float) -> str:
    """A colour mixed with white, or below 0 with black."""
    target = 1.0 if by > 0 else 0.0
    red, green, blue = (each + abs(by) * (target - each) for each in to_rgb(colour))
    return str(to_hex((red, green, blue)))


def on_ground(colour: str) -> str:
    """A colour that is seen on the page's ground: on a dark one it is a little lighter."""
    return shaded(colour, 0.3) if sum(to_rgb(page().style.ground)) < 1 else colour
