"""The version of gclip."""

__version__ = "0.1.0"
