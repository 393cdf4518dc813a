"""What a doctor says: findings, worst first, as text and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, overload

from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.table import fill

Severity: TypeAlias = Literal["wrong", "doubtful", "note"]
SEVERITIES: tuple[Severity, ...] = ("wrong", "doubtful", "note")
Number: TypeAlias = float | int | str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a doctor has to say about a training loop's clipping.

    Attributes:
        code: what it is, for programs: ``"after-step"``.
        severity: ``wrong``: the clipping does not do what it is there for. ``doubtful``: it does
            something else than most expect; it may be meant. ``note``: good to know.
        sentence: what is the case.
        where: ``"train.py:14"``, the line of the loop; "" where there is no one line.
        why: why it matters.
        advice: what to do.
        numbers: what was measured, by name; norms are those of gradients, as clipping met them.
    """

    code: str
    severity: Severity
    sentence: str
    where: str = ""
    why: str = ""
    advice: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.severity}: {self.sentence}{place}"

    def as_dict(self) -> dict[str, Any]:
        """The finding in plain values, for JSON."""
        return {
            "code": self.code, "severity": self.severity, "sentence": self.sentence,
            "where": self.where, "why": self.why, "advice": self.advice,
            "numbers": dict(self.numbers),
        }  # fmt: skip


class Findings(Sequence[Finding]):
    """The findings of some watched steps, worst first; printing them shows them all.

    Args:
        findings: in any order.
        setting: what was watched: ``"20 steps of SGD (lr 0.1)"``.
    """

    def __init__(self, findings: Iterable[Finding], setting: str = "") -> None:
        # sorted() is stable: of one severity they stay in the order of the diagnoses
        self._findings = tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))
        self.setting = setting

    def __len__(self) -> int:
        return len(self._findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Finding]: ...
    def __getitem__(self, index: int | slice) -> Finding | Sequence[Finding]:
        return self._findings[index]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The findings' codes, worst first."""
        return tuple(each.code for each in self)

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong, as against doubtful or worth a note."""
        return any(each.severity == "wrong" for each in self)

    def of(self, code: str) -> Finding:
        """The first finding of a code.

        Raises:
            UsageError: there is none.
        """
        for each in self:
            if each.code == code:
                return each
        raise UsageError(f"no finding {code!r} (there are: {', '.join(self.codes) or 'none'})")

    def text(self, width: int = 100) -> str:
        """All of them in lines of at most `width` characters, but for a word longer than that."""
        lines = fill(f"{self.setting}: {self._summary()}", width)
        for each in self:
            lines += ["", *fill(str(each), width)]
            for sentence in (each.why, each.advice and f"→ {each.advice}"):
                if sentence:
                    lines += [f"  {line}" for line in fill(sentence, width - 2)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Findings({self.setting}: {', '.join(self.codes) or 'nothing to say'})"

    def as_dict(self) -> dict[str, Any]:
        """All of them in plain values, for JSON."""
        return {
            "setting": self.setting,
            "wrong": self.wrong,
            "findings": [each.as_dict() for each in self],
        }

    def _summary(self) -> str:
        counts = {s: sum(each.severity == s for each in self) for s in SEVERITIES}
        words = [screen.plural(n, s) if s == "note" else f"{n} {s}" for s, n in counts.items() if n]
        return ", ".join(words) or "nothing to say against its clipping"
