"""Whose limit is it? One for the whole model is in the record; many groups have many."""

from __future__ import annotations

from gclip.errors import UsageError

_EACH = {
    "layer": "limits a layer",
    "tensor": "limits a tensor",
    "unit": "limits a unit",
    "element": "limits an element",
}


def no_limit(strategy: str) -> str:
    """Why a panel has no line of a limit, in a few words."""
    from gclip.clipping.parameters import resolve

    if strategy == "none":
        return "never clips"
    try:
        parts = resolve(strategy)
    except UsageError:  # of a plugin that is not loaded here
        return "no limit of the model"
    scopes = {str(getattr(part, "scope", "")) for part in parts}
    sides = {str(getattr(part, "side", "")) for part in parts}
    if sides == {"sample"}:
        return "limits an example"
    words = [_EACH[scope] for scope in _EACH if scope in scopes]
    return words[0] if len(words) == 1 else "no limit of the model"
