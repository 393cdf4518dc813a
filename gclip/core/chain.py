"""Several strategies one after another: ``chain("value(clip_value=1)", "norm(max_norm=1)")``."""

from __future__ import annotations

from dataclasses import dataclass

from gclip.core.strategy import Strategy
from gclip.errors import UsageError


@dataclass(frozen=True)
class Chain:
    """Strategies applied in order, each to what the one before it left."""

    strategies: tuple[Strategy, ...]

    def __str__(self) -> str:
        return f"chain({', '.join(map(str, self.strategies))})"


def chain(*strategies: Strategy | Chain | str) -> Chain:
    """Apply `strategies` in order; usable wherever one strategy is.

    Raises:
        UsageError: no strategy given, or one whose spelling cannot be read.
    """
    from gclip.core.registry import parse

    flat: list[Strategy] = []
    for each in strategies:
        made = parse(each) if isinstance(each, str) else each
        if not isinstance(made, Strategy | Chain):
            raise UsageError(f"chain takes strategies or their spellings, but got {each!r}")
        flat.extend(made.strategies if isinstance(made, Chain) else (made,))
    if not flat:
        raise UsageError("chain needs at least one strategy: chain('value', 'norm')")
    return Chain(tuple(flat))
