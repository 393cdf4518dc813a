"""A strategy has one look for good: colour, marker and line style, in every figure."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

import gclip
from gclip.figures import _looks
from gclip.figures._looks import look_of, looks
from gclip.figures._page import on_page

BLINDNESS: dict[str, Any] = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Machado et al. (2009), severity 1, in linear RGB."""


def test_every_strategy_that_ships_has_a_place_and_a_look_of_its_own() -> None:
    shipped = {name for name in gclip.names() if gclip.get(name).__module__.startswith("gclip.")}
    assert {"none", *_looks.ORDER} == shipped, "a new one comes to the end of ORDER"
    found = looks(sorted(shipped))
    assert len(set(found.values())) == len(shipped)
    assert found == {name: look_of(name) for name in shipped}


def test_looks_do_not_depend_on_what_stands_beside() -> None:
    spelled = ("norm", "norm(max_norm=0.1)", "norm(max_norm=10)", "none", "agc(clip_factor=0.02)")
    together = looks(spelled)
    for text in spelled:
        assert together[text] == look_of(text) == looks([text])[text]
    assert len(set(together.values())) == 5
    # These are held: a figure of today looks like one of next year.
    assert (look_of("norm").colour, look_of("norm").marker) == ("#0173b2", "o")
    assert (look_of("agc").colour, look_of("agc").marker) == ("#de8f05", "s")
    assert (look_of("zclip").colour, look_of("zclip").marker) == ("#cc78bc", "^")


def test_plugins_get_what_is_free() -> None:
    mine = [f"mine{number}" for number in range(40)]
    found = looks([*mine, *_looks.ORDER, "none"])
    assert len(set(found.values())) == 40 + len(_looks.ORDER) + 1
    assert all(found[name] == look_of(name) for name in _looks.ORDER)


def test_colours_stay_apart_for_colour_blind_eyes() -> None:
    first = [mpl.colors.to_rgb(colour) for colour in (*_looks.PALETTE[:5], _looks.BASELINE)]
    linear = np.array(first) ** 2.2
    for kind, matrix in BLINDNESS.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(6)
        assert apart.min() > 0.15, kind


def test_on_a_dark_page_ink_is_light_and_colours_are_lighter() -> None:
    light = looks(["none", "norm"])
    with on_page("dark"):
        dark = looks(["none", "norm"])
    assert sum(mpl.colors.to_rgb(dark["none"].colour)) > 2.5
    assert sum(mpl.colors.to_rgb(dark["norm"].colour)) > sum(
        mpl.colors.to_rgb(light["norm"].colour)
    )
    assert dark["norm"].marker == light["norm"].marker
