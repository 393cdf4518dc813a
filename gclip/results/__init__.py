"""Finished runs: kept by a store, read as data frames, judged by statistics.

::

    store = Store("runs")
    runs = results.load(store)                       # one row a run
    table = results.statistics.compare_table(runs)   # one row a strategy
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip.results import statistics as statistics
    from gclip.results.comparable import experiments as experiments
    from gclip.results.comparable import newest as newest
    from gclip.results.frames import Results as Results
    from gclip.results.frames import load as load
    from gclip.results.frames import load_curves as load_curves
    from gclip.results.frames import load_layers as load_layers
    from gclip.results.frames import load_steps as load_steps
    from gclip.results.metrics import metric_of as metric_of
    from gclip.results.store import Store as Store
    from gclip.results.store import StoreWarning as StoreWarning

# Loaded on first use: a command that reads no run need not wait for NumPy.
_HOME = {
    "Results": "frames",
    "Store": "store",
    "StoreWarning": "store",
    "experiments": "comparable",
    "load": "frames",
    "load_curves": "frames",
    "load_layers": "frames",
    "load_steps": "frames",
    "metric_of": "metrics",
    "newest": "comparable",
}

__all__ = sorted(_HOME)

__getattr__ = lazy_attributes(__name__, _HOME, ("statistics",))
