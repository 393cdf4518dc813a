"""A strategy for each player of a run: ``players(generator=agc, discriminator=norm)``.

Where several models are trained against each other (a GAN) or beside each other (actor and critic),
each has an optimizer and a strategy of its own. One strategy is every player's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gclip.core.strategy import Chain, Strategy
from gclip.errors import UsageError, unknown


@dataclass(frozen=True)
class Players:
    """The strategy of each player, by its name."""

    named: tuple[tuple[str, Strategy | Chain], ...]

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """All strategies, one after another."""
        return tuple(
            part
            for _, each in self.named
            for part in (each.strategies if isinstance(each, Chain) else (each,))
        )

    def __str__(self) -> str:
        return f"players({', '.join(f'{name}={each}' for name, each in self.named)})"


def by_player(
    strategy: Strategy | Chain | Players, names: Iterable[str]
) -> dict[str, Strategy | Chain]:
    """The strategy of each of the players `names`; one strategy is everybody's.

    Raises:
        UsageError: `strategy` names a player that there is not, or leaves one out.
    """
    known = list(names)
    if not isinstance(strategy, Players):
        return dict.fromkeys(known, strategy)
    given = dict(strategy.named)
    for name in given:
        if name not in known:
            unknown("player", name, known)
    missing = [name for name in known if name not in given]
    if missing:
        raise UsageError(
            f"{strategy} gives no strategy to {', '.join(missing)}; name every player once, none "
            "where it is not to be clipped"
        )
    return given


def parts_of(strategy: Strategy | Chain | Players) -> tuple[Strategy, ...]:
    """All strategies that take part."""
    return (strategy,) if isinstance(strategy, Strategy) else strategy.strategies
