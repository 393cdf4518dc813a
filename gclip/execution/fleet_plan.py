"""Which runs train together? Those of one shape, and of these first those of one seed.

Runs of one seed see the same batches, so that a fleet of them need not copy an image; a fleet of
several seeds takes about a third longer for each run. A fleet is as large as it may be, but for the
end of a list, which is split so that no worker is idle.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training import RunConfig

FleetSize = int | Literal["auto", "off"]
"""How many runs a fleet has at most; ``auto``: as many as are measured to be the fastest."""


def read_fleet(value: int | str) -> int | Literal["auto"]:
    """What ``--fleet`` says: ``auto``, or a number, 1 for ``off``.

    Raises:
        UsageError: it is something else.
    """
    if value == "auto":
        return "auto"
    if value == "off":
        return 1
    try:
        count = int(value)
    except ValueError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise UsageError(f"fleet must be auto, off or a whole number ≥ 1, but got {value!r}")
    return count


def why_alone(config: RunConfig) -> str:
    """Why a run cannot be in a fleet, in a sentence; empty where it can be."""
    deciding = tuple(getattr(config, name) for name in _DECIDING)
    if deciding not in _KNOWN:
        from gclip.training.fleet.train import unsupported

        # With the strategy's name for its spelling: of many settings one sentence says enough.
        said = unsupported(config)
        _KNOWN[deciding] = said.replace(config.strategy, config.strategy.partition("(")[0])
    return _KNOWN[deciding]


_DECIDING = ("task", "strategy", "code", "model", "model_code", "dropout", "optimizer", "watch")
_KNOWN: dict[tuple[object, ...], str] = {}


def group_into_fleets(configs: Sequence[RunConfig], size: int, workers: int = 1) -> list[list[int]]:
    """The fleets, each a list of places in `configs`: every place once, in order of their first.

    Args:
        size: the largest fleet; 1 for none at all.
        workers: among whom the fleets are spread evenly, as far as there are enough runs.
    """
    if size == 1:
        return [[place] for place in range(len(configs))]
    from gclip.training.fleet.train import fleet_key

    alone = [[place] for place, config in enumerate(configs) if why_alone(config)]
    shapes: dict[object, list[int]] = {}
    for place, config in enumerate(configs):
        if not why_alone(config):
            shapes.setdefault(fleet_key(config), []).append(place)
    fleets = [fleet for same in shapes.values() for fleet in _split(configs, same, size, workers)]
    return sorted([*alone, *fleets])


def _split(
    configs: Sequence[RunConfig], places: Sequence[int], size: int, workers: int
) -> list[list[int]]:
    """Fleets of runs of one shape."""
    rounds = -(-len(places) // (size * workers))
    count = min(rounds * workers, len(places))
    most = -(-len(places) // count)
    seeds: dict[int, list[int]] = {}
    for place in places:
        seeds.setdefault(configs[place].seed, []).append(place)
    if len(seeds) == 1:
        return evenly(places, count)
    fleets: list[list[int]] = []
    together: list[int] = []
    for group in seeds.values():
        if 2 * len(group) >= most:
            fleets += evenly(group, -(-len(group) // most))
            continue
        if len(together) + len(group) > most:
            fleets.append(together)
            together = []
        together += group
    return [*fleets, together] if together else fleets


def evenly(places: Sequence[int], count: int) -> list[list[int]]:
    """`places` in `count` parts whose sizes differ by at most one."""
    least, more = divmod(len(places), count)
    ends = [part * least + min(part, more) for part in range(count + 1)]
    return [list(places[a:b]) for a, b in itertools.pairwise(ends)]
