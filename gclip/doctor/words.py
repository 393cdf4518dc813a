"""How findings say numbers, names and places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gclip.doctor.events import Clip
from gclip.doctor.places import Place


def shown(value: float) -> str:
    """Three digits: ``0.0123``."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """``0.25`` as ``25 %``; a share that is not zero is never said to be."""
    text = f"{100 * share:.0f} %"
    return "less than 1 %" if text == "0 %" and share > 0 else text


def listed(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    if len(names) <= most:
        return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def placed(places: Iterable[Place]) -> str:
    """Each place once, the first three of them."""
    return listed(list(dict.fromkeys(map(str, places))))


def by(clips: Sequence[Clip]) -> str:
    """What clips, with its limit where that is always the same."""
    limits = {clip.limit for clip in clips}
    limit = next(iter(limits)) if len(limits) == 1 else None
    what = clips[0].by
    if limit is None or clips[0].kind == "gclip":
        return what
    return f"{what} (limit {shown(limit)})"


def quantile(values: Sequence[float], share: float) -> float:
    """Of values, none of them NaN: the one below which this share of them lies."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
