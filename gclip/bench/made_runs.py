"""A store of any number of runs that nobody trained: sealed as real ones are, and never synced."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gclip.results.run_files import packed, seal
from gclip.training import RunConfig

STRATEGIES = ("none", "norm", "agc", "percentile", "zclip")
_STEPS, _EPOCHS = 230, 5


def make_store(folder: Path, runs: int) -> list[str]:
    """Write `runs` finished runs into a folder: the `STRATEGIES` in turn, seed by seed.

    Returns:
        Their keys.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = [json.loads(RunConfig(strategy=name).to_json()) for name in STRATEGIES]
    archives = [packed(_steps(place)) for place in range(len(STRATEGIES))]
    random = np.random.default_rng(0)
    keys = []
    for number in range(runs):
        kind = number % len(STRATEGIES)
        config = {**configs[kind], "seed": number // len(STRATEGIES)}
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        files = seal(key, config, _result(float(random.uniform(0.8, 0.95))), _ENVIRONMENT,
                     archives[kind])  # fmt: skip
        (folder / key).mkdir()
        for name, content in files.items():
            (folder / key / name).write_bytes(content)
        keys.append(key)
    return keys


_ENVIRONMENT = {"gclip": "0", "stepping": 2, "device": "none", "date": "2026-01-01T00:00:00+00:00"}


def _result(accuracy: float) -> dict[str, Any]:
    steps = _STEPS // _EPOCHS
    curve = [
        {
            "epoch": epoch, "step": steps * epoch, "train_loss": 1 / epoch, "loss": 1 / epoch,
            "accuracy": accuracy * epoch / _EPOCHS, "seconds": float(epoch),
        }
        for epoch in range(1, _EPOCHS + 1)
    ]  # fmt: skip
    quantiles = {"0.05": 0.7, "0.25": 2.7, "0.5": 4.0, "0.75": 6.6, "0.95": 16.1}
    clipping = {
        "steps": _STEPS, "clip_rate": 0.5, "group_rate": 0.5, "limited_rate": 0.4, "skipped": 0,
        "not_finite": 0, "norm_quantiles": quantiles, "verdict": "step-size limiter",
    }  # fmt: skip
    return {
        "status": "finished", "stopped_at": None, "message": "", "accuracy": accuracy,
        "chance": 0.1, "loss": 0.3, "train_loss": 0.3, "curve": curve, "clipping": clipping,
        "seconds": 5.0,
    }  # fmt: skip


def _steps(seed: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    norms = np.exp(random.normal(1.0, 0.7, _STEPS)).astype(np.float32)
    return {
        "loss": norms / 4, "lr": np.full(_STEPS, 0.15, np.float32), "norm": norms,
        "clipped_norm": np.minimum(norms, 1), "limit": np.ones(_STEPS, np.float32),
        "clipped": (norms > 1).astype(np.float32), "finite": np.ones(_STEPS, bool),
    }  # fmt: skip
