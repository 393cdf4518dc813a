"""The runs of a store as a list, those under way among them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError, choose
from gclip.results.checkpoints import SavedRuns, checkpoint_files
from gclip.results.inventory import read_run, size_of
from gclip.results.run_files import Damaged
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from gclip.results.store import Store

STATUSES = ("finished", "diverged", "pruned", "failed", "under way", "damaged")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run.

    Attributes:
        key: of its config.
        status: one of `STATUSES`.
        task, model, strategy, seed: of its config; None where that cannot be read.
        metric: what it is measured by; None for one that has not been measured.
        score: its value.
        age: seconds since it was stored, or saved.
        size: bytes on the disk; of a fleet's checkpoint its share.
        message: why it failed or is damaged, or how far it is.
    """

    key: str
    status: str
    task: str | None = None
    model: str | None = None
    strategy: str | None = None
    seed: int | None = None
    metric: Metric | None = None
    score: float | None = None
    age: float = 0.0
    size: int = 0
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "key": self.key,
            "status": self.status,
            "task": self.task,
            "model": self.model,
            "strategy": self.strategy,
            "seed": self.seed,
            "metric": None if self.metric is None else self.metric.name,
            "score": self.score,
            "age_seconds": round(self.age, 1),
            "bytes": self.size,
            "message": self.message,
        }


def runs_in(
    store: Store,
    *,
    task: str | None = None,
    model: str | None = None,
    strategy: str | None = None,
    seed: int | None = None,
    status: str | None = None,
) -> list[Row]:
    """The runs of a store, the latest first, as far as they are of what is asked for.

    Args:
        store: that is looked into; nothing in it is changed.
        task, model, strategy: a name, which stands for all its settings, or a whole spelling.
        seed: of the run.
        status: one of `STATUSES`.

    Raises:
        UsageError: there is no such status.
    """
    if status is not None:
        choose(status, STATUSES, "status")
    keys = store.keys()
    stored = [row for row in (_stored(store, key) for key in keys) if row is not None]
    ended = {row.key for row in stored if row.status in ("finished", "diverged", "pruned")}
    under_way = {row.key: row for row in _under_way(store) if row.key not in ended}
    rows = [row for row in stored if row.key not in under_way] + list(under_way.values())
    wanted = {"task": task, "model": model, "strategy": strategy}
    rows = [
        row
        for row in rows
        if all(_is_of(getattr(row, name), value) for name, value in wanted.items())
        and seed in (None, row.seed)
        and status in (None, row.status)
    ]
    return sorted(rows, key=lambda row: (row.age, row.key))


def _stored(store: Store, key: str) -> Row | None:
    path, read = store.path / key, read_run(store, key)
    if read is None:
        return None
    common: dict[str, Any] = {"key": key, "age": _age(path), "size": size_of(path)}
    if isinstance(read, Damaged):
        return Row(**common, status="damaged", message=str(read))
    metric, score = score_of(read.result)
    return Row(
        **common,
        **_of_config(read.config),
        status=read.status,
        metric=metric,
        score=score,
        message=str(read.result.get("message") or ""),
    )


def _under_way(store: Store) -> list[Row]:
    """The runs of all checkpoints; of a run that is in several, the latest."""
    rows: dict[str, Row] = {}
    for path in checkpoint_files(store.path):
        saved = SavedRuns.read(path)
        if saved is None:
            continue
        size = size_of(path) // max(1, len(saved.present))
        for place, key in zip(saved.present, saved.keys, strict=True):
            try:
                config = _of_config(json.loads(saved.configs[place]))
            except (ValueError, RecursionError, UsageError):
                continue
            said = f"step {saved.step} of {saved.steps}"
            row = Row(
                key=key, status="under way", age=_age(path), size=size, message=said, **config
            )
            rows.setdefault(key, row)
    return list(rows.values())


def _of_config(config: Any) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        raise UsageError(f"a run's config maps fields to values, but got {config!r}")
    return {name: config.get(name) for name in ("task", "model", "strategy", "seed")}


def score_of(result: Mapping[str, Any]) -> tuple[Metric | None, float | None]:
    """What a stored result is measured by, and its value; None where there is none."""
    if result.get("status") == "failed":
        return None, None
    recorded = result.get("metric")
    metric = Metric.from_dict(recorded) if recorded else ACCURACY
    scores = result.get("scores") or {}
    value = scores.get(metric.name, result.get("accuracy"))
    number = math.nan if value is None else float(value)
    return metric, None if math.isnan(number) else number


def _is_of(value: str | None, asked: str | None) -> bool:
    """Whether a spelling is the one asked for, or one of the name asked for."""
    if asked is None:
        return True
    return value is not None and asked in (value, value.partition("(")[0])


def _age(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0
