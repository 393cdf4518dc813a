"""Made-up runs for studies whose tables are to be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from gclip.execution import Execution
from gclip.results import Store
from gclip.training import RunConfig
from gclip.tuning.study import Request

TINY = RunConfig(fraction=0.05, epochs=1, batch_size=64)
CONFIG = json.loads(TINY.to_json())


def run(strategy: str, seed: int, accuracy: float, status: str = "finished", **more: Any) -> Any:
    """One row, as `gclip.studies._runs.table_of` makes it."""
    return {
        **CONFIG,
        "strategy": strategy,
        "spelling": strategy,
        "seed": seed,
        "status": status,
        "accuracy": accuracy,
        "clip_rate": 0.5,
        "seconds": 1.0,
        "message": "out of luck" if status == "failed" else "",
        **more,
    }


def frame(*rows: Any) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def asked(path: Path, *strategies: str, base: RunConfig = TINY, **more: Any) -> Request:
    """A request that trains in this process."""
    names = Execution.__dataclass_fields__
    how = {name: more.pop(name) for name in list(more) if name in names}
    return Request(
        base=base,
        store=Store(path, create=True),
        strategies=strategies,
        execution=Execution(**{"device": "cpu", "workers": 1, **how}),
        **more,
    )
