"""What a class says of itself in its docstring."""

from __future__ import annotations

import inspect


class Documented:
    """Base class of descriptions of a class, `cls`."""

    cls: type

    @property
    def doc(self) -> str:
        """The docstring, without the indentation of the code."""
        return inspect.cleandoc(self.cls.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join(self.doc.partition("\n\n")[0].split())
