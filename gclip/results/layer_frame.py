"""The norms of layers over time as a data frame: one row a run, layer and point in time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from gclip.clipping.layer_record import COLUMNS, LayerRecord
from gclip.results.run_files import StoredRun

if TYPE_CHECKING:
    import pandas as pd

LAYER_COLUMNS = ("key", "strategy", "seed", "player", "layer", "depth", "step", *COLUMNS)


def layers_frame(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """The rows (LAYER_COLUMNS) of those of the `runs` whose layers were recorded."""
    import pandas as pd

    frames = []
    for stored in runs:
        record = stored.layers()
        if record is not None:
            frame = pd.DataFrame(_columns(record))
            frame.insert(0, "seed", stored.config["seed"])
            frame.insert(0, "strategy", stored.config["strategy"])
            frame.insert(0, "key", stored.key)
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=list(LAYER_COLUMNS))
    order = ["strategy", "seed", "key", "place", "step"]
    sorted_rows = pd.concat(frames, ignore_index=True).sort_values(order, kind="stable")
    return sorted_rows.reset_index(drop=True)[list(LAYER_COLUMNS)]


def _columns(record: LayerRecord) -> dict[str, Any]:
    """Of one run; a player has no rows at the points at which it made no step."""
    layers, points = len(record.names), len(record.step)
    made = ~np.isnan(record.skipped.T)
    place = np.repeat(np.arange(layers), points).reshape(layers, points)[made]
    players = np.array(record.players, dtype=object)
    first = {player: record.players.index(player) for player in dict.fromkeys(record.players)}
    depths = np.array([i - first[player] for i, player in enumerate(record.players)], dtype=int)
    return {
        "place": place,
        "player": players[place],
        "layer": np.array(record.layers, dtype=object)[place],
        "depth": depths[place],
        "step": np.broadcast_to(record.step, (layers, points))[made],
        **{name: np.asarray(getattr(record, name), float).T[made] for name in COLUMNS},
    }
