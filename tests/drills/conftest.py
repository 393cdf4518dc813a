"""Drills take minutes: they run where ``GCLIP_DRILLS=1`` asks for them (``make drills``)."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("GCLIP_DRILLS"):
        return
    skip = pytest.mark.skip(reason="a drill: GCLIP_DRILLS=1 (make drills) runs it")
    for item in items:
        if "drills" in item.path.parts:
            item.add_marker(skip)
