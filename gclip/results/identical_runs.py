"""Which strategies made the same runs? Two that always clip alike train alike, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from gclip.results.run_files import StoredRun
from gclip.results.store import Store

_OUTCOME = ("status", "stopped_at", "accuracy", "scores", "loss", "train_loss")
_CURVE = ("epoch", "step", "accuracy", "score", "loss", "train_loss")


def identical_runs(store: Store, keys: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The groups of strategies whose runs are the same, seed by seed, among those of ``keys``.

    Runs are the same where status, scores, learning curve and the training loss of every step are
    equal to the last bit; what was recorded of norms and limits may differ, which is of clipping
    and not of the training. A run that is not stored, or failed, is left out, and strategies are
    the same only if their runs are of the same seeds.

    Returns:
        Groups of two or more spellings, each in the order of ``keys``.
    """
    digests: dict[str, dict[int, str]] = {}
    for key in keys:
        stored = store.read(key)
        if stored is not None and stored.status != "failed":
            config = stored.config
            digests.setdefault(config["strategy"], {})[config["seed"]] = _training(stored)
    groups: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for strategy, runs in digests.items():
        groups.setdefault(tuple(sorted(runs.items())), []).append(strategy)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _training(stored: StoredRun) -> str:
    """A digest of everything that a training came to, without how long it took."""
    result = stored.result
    curve = [{name: point.get(name) for name in _CURVE} for point in result.get("curve") or ()]
    outcome = {**{name: result.get(name) for name in _OUTCOME}, "curve": curve}
    digest = hashlib.sha256(json.dumps(outcome, sort_keys=True).encode())
    losses = np.asarray(stored.steps().get("loss", ()), dtype=np.float64)
    digest.update(losses.tobytes())
    return digest.hexdigest()
