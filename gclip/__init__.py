"""gclip: gradient clipping as a choice — register a strategy, compare, tune, use it.

::

    clipper = gclip.Clipper(model, "agc(clip_factor=0.02)")
    loss.backward()
    if not clipper.step().skipped:
        optimizer.step()

    found = gclip.compare(["none", "norm", "agc"], seeds=10)
    print(found)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gclip import figures as figures
    from gclip import results as results
    from gclip.attaching import Attached as Attached
    from gclip.attaching import attach as attach
    from gclip.chaining import Chain as Chain
    from gclip.chaining import chain as chain
    from gclip.clipper import Clipper as Clipper
    from gclip.decide import simulate as simulate
    from gclip.digest import code_digest as code_digest
    from gclip.errors import UsageError as UsageError
    from gclip.fields import FieldInfo as FieldInfo
    from gclip.fields import fields_of as fields_of
    from gclip.fields import setting as setting
    from gclip.fields import tunable as tunable
    from gclip.per_sample import per_sample_gradients as per_sample_gradients
    from gclip.plugins import load_plugins as load_plugins
    from gclip.record import ClipSummary as ClipSummary
    from gclip.record import Record as Record
    from gclip.registry import create as create
    from gclip.registry import get as get
    from gclip.registry import names as names
    from gclip.registry import parse as parse
    from gclip.registry import register as register
    from gclip.report import ClipReport as ClipReport
    from gclip.running.compare import compare as compare
    from gclip.running.comparison import Comparison as Comparison
    from gclip.schedules import Schedule as Schedule
    from gclip.schedules import cosine as cosine
    from gclip.schedules import exponential as exponential
    from gclip.schedules import linear as linear
    from gclip.strategy import Band as Band
    from gclip.strategy import Elements as Elements
    from gclip.strategy import Limit as Limit
    from gclip.strategy import Memory as Memory
    from gclip.strategy import Rate as Rate
    from gclip.strategy import RuleName as RuleName
    from gclip.strategy import Scope as Scope
    from gclip.strategy import Seen as Seen
    from gclip.strategy import Side as Side
    from gclip.strategy import Strategy as Strategy
    from gclip.strategy import Transform as Transform
    from gclip.suggesting import Suggestion as Suggestion
    from gclip.suggesting import Suggestions as Suggestions
    from gclip.surveying import Survey as Survey

__version__ = "0.1.0"

# Where each public name lives. Loaded on first use: `gclip --help` must not wait for torch.
_HOME = {
    "Attached": "attaching",
    "attach": "attaching",
    "Chain": "chaining",
    "chain": "chaining",
    "Clipper": "clipper",
    "simulate": "decide",
    "UsageError": "errors",
    "FieldInfo": "fields",
    "fields_of": "fields",
    "setting": "fields",
    "tunable": "fields",
    "code_digest": "digest",
    "load_plugins": "plugins",
    "ClipSummary": "record",
    "Record": "record",
    "create": "registry",
    "get": "registry",
    "names": "registry",
    "parse": "registry",
    "register": "registry",
    "ClipReport": "report",
    "compare": "running.compare",
    "Comparison": "running.comparison",
    "Band": "strategy",
    "Limit": "strategy",
    "Memory": "strategy",
    "RuleName": "strategy",
    "Scope": "strategy",
    "Seen": "strategy",
    "per_sample_gradients": "per_sample",
    "Schedule": "schedules",
    "cosine": "schedules",
    "exponential": "schedules",
    "linear": "schedules",
    "Elements": "strategy",
    "Rate": "strategy",
    "Side": "strategy",
    "Transform": "strategy",
    "Strategy": "strategy",
    "Suggestion": "suggesting",
    "Suggestions": "suggesting",
    "Survey": "surveying",
}

_PACKAGES = ("figures", "results")
"""Parts that are used by their own name: ``gclip.results.load``, ``gclip.figures.draw``."""

__all__ = sorted([*_HOME, *_PACKAGES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"gclip.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _PACKAGES:
        return importlib.import_module(f"gclip.{name}")
    raise AttributeError(f"module 'gclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
