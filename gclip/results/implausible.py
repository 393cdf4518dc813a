"""What is raised for a run that says what cannot be."""

from __future__ import annotations


class Implausible(Exception):
    """A run says what cannot be; the message names it."""
