"""What "does not apply" means: a promise that makes no sense for a strategy says so."""

from __future__ import annotations


class DoesNotApply(Exception):
    """Raised by a promise that makes no sense for a strategy, with the reason."""
