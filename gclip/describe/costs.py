"""What the strategies cost, as ``gclip bench strategies --write`` measured it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gclip.errors import UsageError


def costs_file() -> Path:
    """Where the costs are kept, beside the strategies."""
    folder = next(iter(importlib.import_module("gclip.strategies").__path__))
    return Path(folder) / "costs.json"


def read_costs() -> Mapping[str, Any]:
    """The committed costs: `machine`, and `costs` as `bench.strategies.summary`; or nothing."""
    path = costs_file()
    if not path.is_file():
        return {}
    costs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return costs


def write_costs(costs: Mapping[str, Any], machine: Mapping[str, Any]) -> Path:
    """Write the file that `read_costs` reads.

    Raises:
        UsageError: outside a checkout of gclip.
    """
    path = costs_file()
    if not (path.parents[1] / "pyproject.toml").is_file():
        raise UsageError(f"costs belong into a checkout of gclip, and {path.parent} is none")
    content = {
        "about": "what `gclip bench strategies --write` measured, read by `make page`",
        "machine": dict(machine),
        "costs": dict(sorted(costs.items())),
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
