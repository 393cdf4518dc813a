"""What every study is asked, and how it answers.

A study is a module of ``gclip.studies``: the first line of its docstring is its question, ``USES``
names the fields of `Request` that it reads beside the common ones, and ``run(request)`` answers.
Setting a field that a study does not read is an error, never ignored.

It may have ``run_count(request)``, how many runs it will make at most; ``SETTINGS``, what it trains
unless told otherwise, by task; and, where many machines can make its trials, ``plans(request)`` and
``trials_of(request, plans)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gclip.execution.execution import Execution
from gclip.tuning.options import RequestOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gclip.results import Store
    from gclip.training import RunConfig


@dataclass(frozen=True, kw_only=True)
class Request(RequestOptions):
    """What a study is to find out, and with what: beside the options, those fields.

    Attributes:
        base: everything about the runs that the study does not vary.
        store: where runs and studies are kept.
        strategies: spellings; settings in them are held.
        name: of the study; None for the study's own default.
        execution: how runs are trained.
    """

    base: RunConfig
    store: Store
    strategies: tuple[str, ...] = ()
    name: str | None = None
    execution: Execution = field(default_factory=Execution)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a study found.

    Attributes:
        rows: the table, one dict a row, JSON-serialisable; None where there is nothing to say.
        columns: the table's columns as shown: heading to key of `rows`, in order.
        notes: sentences below the table: what the columns mean, and what was found, with n.
        figures: for each name a function that draws it.
        more: further findings for ``--json``.
        labels: what the study calls its runs, each with its ``key``: so figures are drawn again.
        searches: names of the searches whose trials belong to it.
        ok: False where nothing could be found out (every trial failed): the exit code is 1.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]
    notes: Sequence[str] = ()
    figures: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[Mapping[str, Any]] = ()
    searches: Sequence[str] = ()
    ok: bool = True
