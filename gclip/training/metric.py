"""What a run is measured by: its name, its unit, which direction is better, and the worst of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gclip.errors import UsageError, choose

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """A number that says how good a trained model is.

    Attributes:
        name: as tables and axes call it: ``mean squared error``.
        better: which direction is: ``higher`` or ``lower``.
        worst: what a run that diverged scores; of accuracy, that of guessing.
        unit: after the number; ``%`` shows shares times 100.
        low, high: the range that it cannot leave.
        decimals: how many a table shows.

    Raises:
        UsageError: for a name that is empty, another direction, or a range or a worst value that
            makes no sense.

    Example:
        >>> Metric("mean squared error", better="lower", worst=1 / 6, low=0).text(0.01234)
        '0.012'
        >>> ACCURACY.text(0.912), ACCURACY.heading
        ('91.2 %', 'accuracy %')
    """

    name: str
    better: Direction = "higher"
    worst: float = dataclasses.field(kw_only=True)
    unit: str = dataclasses.field(default="", kw_only=True)
    low: float = dataclasses.field(default=-math.inf, kw_only=True)
    high: float = dataclasses.field(default=math.inf, kw_only=True)
    decimals: int = dataclasses.field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "\n" in self.name:
            raise UsageError(f"a metric's name is a line of text, but got {self.name!r}")
        choose(self.better, ("higher", "lower"), f"direction of the metric {self.name!r}")
        for field in ("worst", "low", "high"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise UsageError(f"{field} of the metric {self.name!r} is a number, not {value!r}")
            object.__setattr__(self, field, float(value))
        if not math.isfinite(self.worst) or not self.low <= self.worst <= self.high:
            raise UsageError(
                f"worst of the metric {self.name!r}, which a diverged run scores, must be a finite "
                f"number from {self.low:g} to {self.high:g}, but got {self.worst:g}"
            )

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be shown in its unit: 100 for ``%``."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def heading(self) -> str:
        """Name and unit, as a table's column or an axis has them."""
        return f"{self.name} {self.unit}".strip()

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: a difference times it is an improvement."""
        return 1 if self.better == "higher" else -1

    @property
    def differences(self) -> tuple[float, float]:
        """The range of a difference of two values."""
        return self.low - self.high, self.high - self.low

    def number(self, value: float) -> str:
        """A value in its unit, without the unit; ``n/a`` for NaN."""
        return "n/a" if math.isnan(value) else f"{self.scale * value:.{self.decimals}f}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)} {self.unit}".strip()

    def best(self, values: Any) -> float:
        """The best of `values`, those that are NaN left out; NaN without any."""
        known = [float(value) for value in values if not math.isnan(value)]
        return (max if self.better == "higher" else min)(known) if known else math.nan

    def improves(self, value: float, than: float) -> bool:
        """Whether `value` is better than another."""
        return self.sign * (value - than) > 0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a stored run; ranges that have no end are left out."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if not (isinstance(v, float) and math.isinf(v))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metric:
        """Read what `to_dict` gave.

        Raises:
            UsageError: it is not that.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"this is not a metric: {dict(values)!r}") from error


ACCURACY = Metric("accuracy", better="higher", worst=0.1, unit="%", low=0.0, high=1.0, decimals=1)
"""The share of right answers. ``worst`` is that of guessing: ``accuracy(classes)``."""


def accuracy(classes: int) -> Metric:
    """Accuracy of so many classes."""
    return dataclasses.replace(ACCURACY, worst=1 / classes)
