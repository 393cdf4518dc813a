"""The tables of ``gclip list --problems`` and ``gclip list --models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.text import screen
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.cli.described import Descriptions
    from gclip.describe.facts import Facts

_PROBLEMS = (
    Column(heading="problem", words=True),
    Column(heading="what is minimised", words=True, least=24),
    Column(heading="fields", words=True, least=14),
    Column(heading="metric", words=True, least=14),
    Column(heading="defaults", words=True, leaves=1, least=14),
)
_MODELS = (
    Column(heading="model", words=True),
    Column(heading="what it is", words=True, least=24),
    Column(heading="settings", words=True, least=18),
    Column(heading="inputs", words=True, least=10),
)
_LEGENDS = {
    "problems": 'A run\'s: --task NAME, with fields in brackets: --task "NAME(field=value)". '
    "gclip show NAME says more.",
    "models": 'A run\'s: --model NAME, with settings in brackets: --model "NAME(setting=value)". '
    "gclip show NAME says more.",
}


def list_plugins(described: Descriptions, *, problems: bool, models: bool, as_json: bool) -> None:
    """Print the tables that are asked for, or one JSON object."""
    found: dict[str, list[Facts]] = {}
    if problems:
        found["problems"] = described.everything("problem")
    if models:
        found["models"] = described.everything("model")
    if as_json:
        screen.echo_json({kind: [each["listed"] for each in some] for kind, some in found.items()})
        return
    for kind, some in found.items():
        table = TextTable(columns=_PROBLEMS if kind == "problems" else _MODELS)
        for each in some:
            table.add(*each["cells"])
        screen.echo_table(table)
        screen.echo()
        screen.echo_wrapped(_LEGENDS[kind])
