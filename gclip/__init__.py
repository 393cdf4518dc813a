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

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip import figures as figures
    from gclip import results as results
    from gclip.clipping.clip_handle import ClipHandle as ClipHandle
    from gclip.clipping.clipper import Clipper as Clipper
    from gclip.clipping.hooks import Attached as Attached
    from gclip.clipping.hooks import attach as attach
    from gclip.clipping.layer_norms import LayerNorms as LayerNorms
    from gclip.clipping.layer_record import LayerRecord as LayerRecord
    from gclip.clipping.per_sample.gradients import per_sample_gradients as per_sample_gradients
    from gclip.clipping.record import ClipSummary as ClipSummary
    from gclip.clipping.record import Record as Record
    from gclip.clipping.report import ClipReport as ClipReport
    from gclip.clipping.simulation import simulate as simulate
    from gclip.core.digest import code_digest as code_digest
    from gclip.core.fields import FieldInfo as FieldInfo
    from gclip.core.fields import fields_of as fields_of
    from gclip.core.fields import setting as setting
    from gclip.core.fields import tunable as tunable
    from gclip.core.plugins import load_plugins as load_plugins
    from gclip.core.registry import chain as chain
    from gclip.core.registry import create as create
    from gclip.core.registry import get as get
    from gclip.core.registry import names as names
    from gclip.core.registry import parse as parse
    from gclip.core.registry import register as register
    from gclip.core.schedules import Schedule as Schedule
    from gclip.core.schedules import cosine as cosine
    from gclip.core.schedules import exponential as exponential
    from gclip.core.schedules import linear as linear
    from gclip.core.seen import Band as Band
    from gclip.core.seen import Elements as Elements
    from gclip.core.seen import Limit as Limit
    from gclip.core.seen import Rate as Rate
    from gclip.core.seen import Seen as Seen
    from gclip.core.strategy import Chain as Chain
    from gclip.core.strategy import Memory as Memory
    from gclip.core.strategy import RuleName as RuleName
    from gclip.core.strategy import Scope as Scope
    from gclip.core.strategy import Side as Side
    from gclip.core.strategy import Strategy as Strategy
    from gclip.core.strategy import Transform as Transform
    from gclip.doctor.examination import Doctor as Doctor
    from gclip.doctor.examination import doctor as doctor
    from gclip.doctor.findings import Finding as Finding
    from gclip.doctor.findings import Findings as Findings
    from gclip.errors import UsageError as UsageError
    from gclip.execution.compare import compare as compare
    from gclip.execution.comparison import Comparison as Comparison
    from gclip.survey.suggestions import Suggestion as Suggestion
    from gclip.survey.suggestions import Suggestions as Suggestions
    from gclip.survey.survey import Survey as Survey
    from gclip.training.metric import Metric as Metric
    from gclip.training.models.builder import build_model as build_model
    from gclip.training.models.registry import register_model as register_model
    from gclip.training.problem import Problem as Problem
    from gclip.training.run_state import RunState as RunState
    from gclip.training.supervised import Supervised as Supervised
    from gclip.training.tasks import register_problem as register_problem

from gclip.version import __version__ as __version__

# Where each public name lives. Loaded on first use: `gclip --help` must not wait for torch.
_HOME = {
    "Attached": "clipping.hooks",
    "ClipHandle": "clipping.clip_handle",
    "attach": "clipping.hooks",
    "Chain": "core.strategy",
    "chain": "core.registry",
    "Clipper": "clipping.clipper",
    "simulate": "clipping.simulation",
    "UsageError": "errors",
    "FieldInfo": "core.fields",
    "fields_of": "core.fields",
    "setting": "core.fields",
    "tunable": "core.fields",
    "code_digest": "core.digest",
    "load_plugins": "core.plugins",
    "ClipSummary": "clipping.record",
    "Record": "clipping.record",
    "LayerNorms": "clipping.layer_norms",
    "LayerRecord": "clipping.layer_record",
    "create": "core.registry",
    "get": "core.registry",
    "names": "core.registry",
    "parse": "core.registry",
    "register": "core.registry",
    "ClipReport": "clipping.report",
    "compare": "execution.compare",
    "Comparison": "execution.comparison",
    "Band": "core.seen",
    "Limit": "core.seen",
    "Memory": "core.strategy",
    "RuleName": "core.strategy",
    "Scope": "core.strategy",
    "Seen": "core.seen",
    "per_sample_gradients": "clipping.per_sample.gradients",
    "Schedule": "core.schedules",
    "cosine": "core.schedules",
    "exponential": "core.schedules",
    "linear": "core.schedules",
    "Elements": "core.seen",
    "Rate": "core.seen",
    "Side": "core.strategy",
    "Transform": "core.strategy",
    "Strategy": "core.strategy",
    "Doctor": "doctor.examination",
    "Finding": "doctor.findings",
    "Findings": "doctor.findings",
    "Suggestion": "survey.suggestions",
    "Suggestions": "survey.suggestions",
    "Survey": "survey.survey",
    "Metric": "training.metric",
    "Problem": "training.problem",
    "RunState": "training.run_state",
    "Supervised": "training.supervised",
    "register_problem": "training.tasks",
    "build_model": "training.models.builder",
    "register_model": "training.models.registry",
}

_PACKAGES = ("doctor", "figures", "results")
"""Parts that are used by their own name: ``gclip.results.load``, ``gclip.doctor(model, …)``."""

__all__ = sorted([*_HOME, *_PACKAGES])

__getattr__ = lazy_attributes(__name__, _HOME, _PACKAGES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
