"""Claims that were published about clipping, one TOML file each: what is compared, and what would
support the claim.

::

    claim = "…"                 # what is said, in a sentence
    source = "…"                # who says it, and where
    setting = "…"               # what is trained here, and what it is not
    compares = "score"          # or "ceiling" (of the learning rate), "clip_rate"
    expects = "better"          # of the first arm: better, not better, equal, higher
    margin = 0.01               # the smallest difference that would matter, in the unit compared
    seeds = 10                  # from 0 on
    rates = [0.01, 0.02]        # of a ceiling: the learning rates, ascending

    [run]                       # what both arms are
    [arms."clipped"]            # what the first is, beside that
    [arms."not clipped"]        # what it is held against
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gclip.errors import UsageError, unknown

if TYPE_CHECKING:
    from gclip.training import RunConfig

FOLDER = Path(__file__).with_name("published")

Compares = Literal["score", "ceiling", "clip_rate"]
Expects = Literal["better", "not better", "equal", "higher"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published claim, and what is to be compared for it.

    Attributes:
        name: of its file.
        claim: what is said.
        source: who says it.
        setting: what is trained, and what that is not.
        compares: what is compared of the runs: their score; the highest learning rate with which
            they train; the share of steps that were clipped.
        expects: what the claim says of the first arm beside the second.
        margin: the smallest difference that would matter, in the unit compared; of a ceiling, a
            factor.
        arms: what each of the two is, beside `run`, by name.
        run: what both are.
        seeds: how many, from 0 on.
        rates: the learning rates of a ceiling, ascending.
    """

    name: str
    claim: str
    source: str
    setting: str
    compares: Compares
    expects: Expects
    margin: float
    arms: Mapping[str, Mapping[str, Any]]
    run: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 10
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in (("compares", Compares), ("expects", Expects)):
            if getattr(self, name) not in get_args(choices):
                unknown(name, str(getattr(self, name)), get_args(choices))
        if len(self.arms) != 2:
            raise UsageError(f"a claim compares two arms, but has {len(self.arms)}")
        if (self.compares == "ceiling") != bool(self.rates):
            raise UsageError("rates are there for a ceiling, and only for one")
        if list(self.rates) != sorted(set(self.rates)):
            raise UsageError(f"rates must ascend, but are {list(self.rates)}")
        if not self.margin > 0 or (self.compares == "ceiling" and not self.margin > 1):
            least = "1, being a factor" if self.compares == "ceiling" else "0"
            raise UsageError(f"margin must be above {least}, but is {self.margin}")

    def configs(self, seeds: tuple[int, ...]) -> list[tuple[dict[str, Any], RunConfig]]:
        """A label and a config for each run, seed by seed."""
        from gclip.training import task_defaults

        cells = []
        for seed in seeds:
            for arm, own in self.arms.items():
                given = {**self.run, **own}
                base = task_defaults(given.get("task", "digits")).replace(**given)
                for rate in self.rates or (base.lr,):
                    labels = {"claim": self.name, "arm": arm, "rate": rate}
                    cells.append((labels, base.replace(lr=rate, seed=seed)))
        return cells


def claims(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """All claims of a folder, by the names of their files.

    Raises:
        UsageError: a file that is no claim, by its name.
    """
    return tuple(read(path) for path in sorted(folder.glob("*.toml")))


def read(path: Path) -> Claim:
    """The claim in a file.

    Raises:
        UsageError: it is none: the file is named.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        fields = set(Claim.__dataclass_fields__) - {"name"}
        for name in given:
            if name not in fields:
                unknown("key of a claim", name, sorted(fields))
        rates = tuple(given.pop("rates", ()))
        return Claim(name=path.stem, rates=rates, **given)
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path.name} is no claim that can be tried: {error}") from error
