"""Is what a checkpoint holds the state of a run? A seal proves it whole, not who made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def check_state(state: Any) -> None:
    """Look at what is no tensor; torch looks at those.

    Raises:
        ValueError: naming what is something else than a run's state has there.
    """
    if not isinstance(state, Mapping):
        raise ValueError("the run is no table")
    for name, (is_right, words) in _PARTS.items():
        if name in state and not is_right(state[name]):
            raise ValueError(f"{name} is no {words}")
    if state["step"] != len(state["losses"]):
        raise ValueError(f"there are {len(state['losses'])} losses of {state['step']} steps")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _are_points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, dict) and all(map(_is_number, point.values())) for point in value
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_count(value.get("step"))
        and _are_names(value.get("parameters"))
    )


_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("epoch", "step", "within", "broken"), (_is_count, "count")),
    **dict.fromkeys(("losses", "rates"), (_are_numbers, "list of numbers")),
    "curve": (_are_points, "curve"),
    "sequence": (_are_names, "list of names"),
    "first_not_finite": (_is_place, "step with names"),
}
