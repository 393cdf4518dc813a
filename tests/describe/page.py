"""The page of all strategies: made from the registry, the golden tests and the measured costs.

``python -m tests.describe.page`` (or ``make page``) writes ``strategies/README.md``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gclip.core import registry
from gclip.describe import SIDE_WORDS, Description, describe, families, read_costs
from tests.describe.evidence import evidence

PAGE = Path(__file__).parents[2] / "strategies" / "README.md"

_INTRO = """\
# Strategies

<!-- Made by `make page`; a test fails where it is out of date. -->

{count} strategies: one method, one file, one paper. `gclip list` shows them in the terminal, and
`gclip show NAME` one of them, with its parameters and what it does to a few norms.

## A new one

A file in this folder is all it takes: the registry, the list, comparisons, studies and this page
find it by themselves. (From outside, `--plugin FILE` does the same.)

```python
{snippet}```

`equation` and `paper` are what lists show; neither counts as code, so that an edit there trains no
run again. A method that needs the elements themselves, not only their norms, derives from
`gclip.Transform` and writes `transform`.

1. `gclip show "half_of_mean(ratio=0.8)"`: does it do to those norms what you meant?
2. `gclip check half_of_mean`: does it keep the contract, in every scope, rule and side it allows?
3. Golden numbers in `tests/golden/`: the equation once more, in float64 NumPy, and deliberately
   wrong variants of the strategy, each of which some number must catch.
4. `gclip bench strategies --write`, then `make page`.

## What can be set on each

| setting | choices |
|---|---|
{shared}

Which of them make sense is the strategy's to say (`gclip show`). A tunable number may follow a
schedule: `norm(max_norm=linear(1, 0.1))`, or `cosine`, or `exponential`.

## All of them

- **side**: what can be clipped, the default first: {sides}.
- **memory**: what is kept between steps, measured by running the strategy; a group is what `scope`
  makes one.
{cost}
- **tests**: every strategy keeps the contract (`gclip check`). Beyond it: golden cases, numbers
  computed independently in float64 NumPy or published; mutants, wrong variants that these numbers
  must and do catch; and the libraries whose gradients it is compared with over 200 steps, by
  `tests/golden/test_peers.py`.
"""

_SNIPPET = '''\
from dataclasses import dataclass

import gclip
from gclip.core import ema


@gclip.register("half_of_mean")
@dataclass(frozen=True, kw_only=True)
class HalfOfMean(gclip.Strategy):
    """Clip to a share of the mean norm so far."""

    equation = "g ← g · min(1, r·mean(n)/‖g‖)"
    paper = "Doe 2026"
    family = "past norms"
    ratio: float = gclip.tunable(0.5, low=0.1, high=2.0, log=True, doc="share of the mean, r")

    def remember(self, like):  # like: zeros, (…, groups)
        return {"mean": ema.empty(like)}

    def limit(self, seen, memory):
        return self.ratio * ema.mean(memory["mean"])  # inf before the first norm

    def learn(self, seen, clipped_norm, memory):
        return {"mean": ema.push(memory["mean"], seen.norm, 0.99, seen.valid)}
'''

_SHARED = (
    ("scope", "which gradients share one norm",
     {"global": "all", "layer": "a module's", "tensor": "a parameter's",
      "unit": "one output row or filter's", "element": "none: each by itself"}),
    ("rule", "what happens beyond the limit",
     {"scale": "down to it", "clamp": "cut the elements", "normalize": "to it, from below too",
      "soft": "n becomes n·c/(c + n)", "skip": "leave the whole step out",
      "transform": "the method's own; not a choice"}),
    ("side", "what is measured and clipped",
     {"gradient": "before the optimizer", "update": "the optimizer's step",
      "sample": "each example's gradient, before their mean"}),
    ("warmup", "steps before the limit binds; memory learns from the first", {"0": "and up"}),
    ("floor", "smallest factor that anything is multiplied by", {"0": "to 1"}),
)  # fmt: skip


def page() -> str:
    """The page, in Markdown, of the strategies that ship with gclip."""
    classes = map(registry.get, registry.names())
    shipped = [describe(cls) for cls in classes if registry.ships_with_gclip(cls)]
    costs = read_costs()
    parts = [
        _INTRO.format(
            count=len(shipped),
            snippet=_SNIPPET,
            shared="\n".join(
                f"| `{name}`: {what} | {_choices(choices)} |" for name, what, choices in _SHARED
            ),
            sides=", ".join(_side_words()),
            cost=_cost_words(costs),
        ).rstrip("\n")
    ]
    for family, members in families(shipped).items():
        parts.append(f"\n### {family[:1].upper()}{family[1:]}\n")
        parts.append("| name | equation | side | memory | cost | from | tests |")
        parts.append("|---|---|---|---|---|---|---|")
        parts += [_row(each, costs) for each in members]
    return "\n".join(parts) + "\n"


def _row(each: Description, costs: Mapping[str, Any]) -> str:
    measured = costs.get("costs", {}).get(each.name)
    cells = (
        f"[`{each.name}`]({each.cls.__module__.rpartition('.')[2]}.py)",
        _code(each.equation),
        ", ".join(SIDE_WORDS[side] for side in each.sides),
        each.memory.words,
        "–" if measured is None else _cost(measured),
        _source(each),
        str(evidence(each.name)),
    )
    return f"| {' | '.join(cells)} |"


def _source(each: Description) -> str:
    if each.arxiv is None:
        return each.reference
    return f"[{each.reference}](https://arxiv.org/abs/{each.arxiv})"


def _cost(measured: Mapping[str, Any]) -> str:
    return f"{measured['cost']:.2f}×" + (" (idle)" if measured["idle"] else "")


def _cost_words(costs: Mapping[str, Any]) -> str:
    words = (
        "the median time of a call that clips, over that of `norm` with the same scope, in "
        "alternation on the same gradients of a ResNet-18. On the side update a whole SGD step is "
        "timed, beside one with `norm(side=update)`; per example, a step of LeNet, beside one that "
        "does not clip. Idle: what it saw gave it nothing to clip. Limits relative to the weights "
        "read those too: three passes over the memory, where `norm` makes two."
    )
    machine = costs.get("machine")
    if machine:
        words += (
            f" Measured on {machine['cores']} cores of {machine['processor']}, "
            f"torch {machine['torch']}."
        )
    return textwrap.fill(words, 98, initial_indent="- **cost**: ", subsequent_indent="  ")


def _choices(choices: Mapping[str, str]) -> str:
    return " · ".join(f"`{name}`" + (f" {what}" if what else "") for name, what in choices.items())


def _side_words() -> tuple[str, ...]:
    return tuple(
        words if words == side else f"{words} (`side={side}`)" for side, words in SIDE_WORDS.items()
    )


def _code(text: str) -> str:
    """Text as code in a table's cell, where a bar would end the cell."""
    return "`" + text.replace("`", "").replace("|", r"\|") + "`" if text else "–"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
