"""Stores of made-up runs that look like training, for figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gclip.clipping.layer_record import LayerRecord
from gclip.results import Results, Store

EPOCHS, STEPS = 5, 225
FIVE = ("none", "value(clip_value=1)", "norm(max_norm=0.3)", "percentile", "agc(clip_factor=0.02)")
SCOPES = ("tensor", "layer", "unit", "element")
THIRTY = (
    *FIVE,
    *[f"norm(max_norm={value:g}, scope={scope})" for value in (0.1, 1, 5) for scope in SCOPES],
    *[f"agc(clip_factor={value:g}, eps=0.01)" for value in (0.005, 0.01, 0.05, 0.1, 0.5)],
    *[f"percentile(percentile={value}, window=100, scope=unit)" for value in (5, 10, 25, 50, 90)],
    *["zclip", "adagc", "spam"],
)


def run(strategy: str, rank: int, seed: int, **settings: Any) -> Any:
    """A run whose quality falls with its strategy's ``rank``; the worst diverge in most seeds."""
    random = np.random.default_rng([rank, seed])
    config = {
        "task": "digits",
        "model": "lenet",
        "optimizer": "sgd",
        "lr": 0.2,
        "split": "test",
        "batch_size": 32,
        "epochs": EPOCHS,
        "code": "",
        "strategy": strategy,
        "seed": seed,
        **settings,
    }
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    stop = int(random.integers(40, 120)) if random.random() < _risk(strategy) else STEPS
    diverged = stop < STEPS
    time = np.arange(stop)
    norm = (2.5 * np.exp(-time / 90) + 0.4) * random.lognormal(0, 0.5, stop)
    if diverged:
        norm[-25:] *= np.exp(np.linspace(0, 12, 25))
        norm[-4:] = np.inf
    limit = _limit(strategy, norm)
    finite = np.isfinite(norm)
    clipped_norm = np.where(finite, np.fmin(norm, np.where(np.isnan(limit), norm * 0.8, limit)), 0)
    clipped = (clipped_norm < norm) & finite
    best = 0.97 - 0.012 * rank + 0.01 * random.normal()
    curve = [
        {
            "epoch": epoch,
            "step": 45 * epoch,
            "accuracy": best - 0.75 * np.exp(-epoch / (1 + 0.05 * rank)) + 0.008 * random.normal(),
            "train_loss": 0.05
            + 2.2 * np.exp(-epoch * (0.9 - 0.02 * rank)) * random.lognormal(0, 0.1),
            "loss": 0.1,
            "seconds": 0.2 * epoch,
        }
        for epoch in range(1, EPOCHS + 1)
        if 45 * epoch <= stop
    ]
    watched = {"layers": list(LAYERS)} if config.get("watch") else {}
    result = {
        **watched,
        "status": "diverged" if diverged else "finished",
        "stopped_at": stop if diverged else None,
        "accuracy": 0.1 if diverged else curve[-1]["accuracy"],
        "loss": "inf" if diverged else 0.1,
        "curve": curve,
        "seconds": 1.0,
        "clipping": {
            "steps": stop,
            "clip_rate": float(clipped.mean()),
            "limited_rate": float((clipped_norm < 0.99 * norm)[finite].mean()),
            "skipped": 0,
            "not_finite": int((~finite).sum()),
            "verdict": "step-size limiter" if clipped.mean() > 0.1 else "safety net",
        },
    }
    steps = {
        "loss": norm,
        "norm": norm,
        "clipped_norm": clipped_norm,
        "limit": limit,
        "clipped": clipped,
        "finite": finite,
    }
    return SimpleNamespace(
        config=SimpleNamespace(
            key=hashlib.sha256(text.encode()).hexdigest(), to_json=lambda: text, values=config
        ),
        status=result["status"],
        environment={"device": "cpu", "date": "2000-01-01"},
        steps={name: np.asarray(values, np.float32) for name, values in steps.items()},
        layers=_layers(norm, clipped_norm) if config.get("watch") else None,
        to_dict=lambda: result,
    )


LAYERS = tuple(f"body.{place}" for place in range(20))


def _layers(norm: Any, clipped_norm: Any) -> LayerRecord:
    """Norms that grow tenfold from the last layer to the first."""
    share = np.logspace(0, -1, len(LAYERS))
    before, after = (each[:, None] * share for each in (norm, clipped_norm))
    infinite = np.isinf(before)
    return LayerRecord(
        names=LAYERS,
        step=np.arange(len(norm)),
        before=before,
        after=np.where(infinite, np.nan, after),
        before_max=before,
        after_max=np.where(infinite, np.nan, after),
        skipped=infinite.astype(float),
    )


def _risk(strategy: str) -> float:
    return 0.8 if strategy == "none" else 0.3 if strategy.startswith("value") else 0.02


def _limit(strategy: str, norm: Any) -> Any:
    if strategy == "none":
        return np.full(norm.shape, np.inf)
    if strategy.startswith("norm") and "scope" not in strategy:
        return np.full(norm.shape, 0.3)
    if strategy.startswith("percentile"):
        return np.array([np.nanquantile(norm[: i + 1], 0.1) for i in range(norm.size)])
    return np.full(norm.shape, np.nan)  # many groups, no single limit


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Store]:
    """``fill(strategies, seeds=5, **settings)`` -> a store with these runs."""

    def filled(
        strategies: Sequence[str], seeds: int = 5, name: str = "runs", **settings: Any
    ) -> Store:
        store = Store(tmp_path / name, create=True)
        for rank, strategy in enumerate(strategies):
            for seed in range(seeds):
                store.save(run(strategy, rank, seed, **settings))
        return store

    return filled


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three strategies on four seeds, with everything that a comparison records."""
    store = Store(tmp_path_factory.mktemp("compared"), create=True)
    for rank, strategy in enumerate(("none", "norm(max_norm=0.3)", "percentile")):
        for seed in range(4):
            store.save(run(strategy, rank, seed, watch="layer"))
    return Results.read(store)
