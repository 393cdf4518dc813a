"""The tables of ``gclip list --problems`` and ``gclip list --models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gclip.cli.named import names_of
from gclip.text import screen
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.describe import ModelDescription, ProblemDescription

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


def list_plugins(*, problems: bool, models: bool, as_json: bool) -> None:
    """Print the tables that are asked for, or one JSON object."""
    from gclip.describe import describe_model, describe_problem

    found: dict[str, list[Any]] = {}
    if problems:
        found["problems"] = [describe_problem(name) for name in names_of("problem")]
    if models:
        found["models"] = [describe_model(name) for name in names_of("model")]
    if as_json:
        screen.echo_json({kind: [each.as_dict() for each in some] for kind, some in found.items()})
        return
    for kind, some in found.items():
        table = TextTable(columns=_PROBLEMS if kind == "problems" else _MODELS)
        for each in some:
            table.add(*(_problem(each) if kind == "problems" else _model(each)))
        screen.echo_table(table)
        screen.echo()
        screen.echo_wrapped(_LEGENDS[kind])


def _problem(each: ProblemDescription) -> tuple[str, ...]:
    from gclip.describe import format_value

    fields = [f"{p.info.name}={format_value(p.info.default)}" for p in each.parameters]
    summary = each.summary.replace("``", "`")
    return each.name, summary, ", ".join(fields) or "–", each.direction, each.settings


def _model(each: ModelDescription) -> tuple[str, ...]:
    from gclip.describe import format_value

    settings = [f"{name}={format_value(s.default)}" for name, s in each.settings.items()]
    summary = each.summary.replace("``", "`")
    return each.name, summary, ", ".join(settings) or "–", ", ".join(each.inputs) or "–"
