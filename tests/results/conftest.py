"""Runs without training: what the store needs of a result, and no more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Config:
    """A run's config as the store sees it: an identity and canonical JSON."""

    values: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(self.values, sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    config: Config
    status: str = "finished"
    accuracy: float = 0.9
    curve: list[dict[str, Any]] = field(default_factory=list)
    clipping: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    layers: Any = None
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 1.0
    stopped_at: int | None = None
    message: str = ""
    loss: float = 0.3
    train_loss: float = 0.2

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@pytest.fixture
def make() -> Callable[..., Any]:
    """``make("norm", seed=3, status="diverged", config={"lr": 0.1}, length=50)`` -> a result."""

    def result(
        strategy: str = "none",
        seed: int = 0,
        *,
        config: dict[str, Any] | None = None,
        length: int = 6,
        **fields: Any,
    ) -> Result:
        values = {
            "task": "digits",
            "model": "lenet",
            "optimizer": "sgd",
            "lr": 0.2,
            "epochs": 2,
            "optimizer_settings": {},
            "split": "test",
            "code": "",
            "batch_size": 32,
            "strategy": strategy,
            "seed": seed,
            **(config or {}),
        }
        rows = np.random.default_rng(seed)
        norm = rows.lognormal(size=length).astype(np.float32)
        clipped = (norm > 1).astype(np.float32)
        made = {
            "curve": [
                {"epoch": 1, "step": 3, "train_loss": 1.5, "accuracy": 0.5, "loss": 1.2},
                {"epoch": 2, "step": 6, "train_loss": 0.2, "accuracy": 0.9, "loss": 0.3},
            ],
            "clipping": {
                "steps": length,
                "clip_rate": float(clipped.mean()),
                "group_rate": 0.25,
                "limited_rate": 0.5,
                "skipped": 0,
                "verdict": "step-size limiter",
                "norm_quantiles": {"0.05": 0.1, "0.25": 0.5, "0.5": 1.0, "0.75": 2.0, "0.95": 4.0},
            },
            "steps": {
                "loss": norm * 0 + 2,
                "lr": norm * 0 + 0.2,
                "norm": norm,
                "clipped": clipped,
                "clipped_norm": np.minimum(norm, 1),
                "limit": norm * 0 + 1,
                "finite": norm * 0 + 1,
            },
            "environment": {"device": "cpu", "date": "2000-01-01T00:00:00"},
        }
        return Result(Config(values), **(made | fields))

    return result
