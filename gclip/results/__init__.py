"""Finished runs: kept by a store, read as data frames, judged by statistics.

store = Store("runs")
runs = results.load(store)                       # one row a run
table = results.statistics.compare_table(runs)   # one row a strategy
"""

from gclip.results.experiments import experiments, newest
from gclip.results.frames import Results, load, load_curves, load_steps
from gclip.results.store import Store, StoreWarning

__all__ = [
    "Results",
    "Store",
    "StoreWarning",
    "experiments",
    "load",
    "load_curves",
    "load_steps",
    "newest",
]
