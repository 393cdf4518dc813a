"""The public interface: what users' programs call today, they can call tomorrow."""

from __future__ import annotations

import json

import pytest

import gclip
from tests.interface.signatures import FILE, current

HELD = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", HELD)
def test_a_public_name_keeps_its_parameters(name: str) -> None:
    assert current()[name] == HELD[name]


def test_every_public_name_is_held() -> None:
    assert sorted(HELD) == sorted(gclip.__all__)
