"""``gclip doctor``: what is wrong with the clipping of a training loop?"""

from __future__ import annotations

from typing import Annotated

import typer

from gclip.cli.options import Json
from gclip.cli.progress import StepsDisplay
from gclip.errors import UsageError
from gclip.text import screen


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    training: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:FUNCTION]",
            help="A Python file that defines model, optimizer and step(), which makes one step; "
            "or one of its functions, which returns the three.",
        ),
    ],
    steps: Annotated[int, typer.Option("--steps", help="Steps to watch.")] = 20,
    json: Json = False,
) -> None:
    """Watch some steps of a training loop of yours, and say what is wrong with its clipping.

    Each finding has what is the case and in which line, why it matters, and what to do. Several
    models or optimizers are mappings or lists. Exit code 1 where something is wrong.

    \b
    Examples:
      gclip doctor train.py
      gclip doctor train.py:setup --steps 50
      gclip doctor train.py --json
    """
    if steps < 1:
        raise UsageError(f"--steps must be at least 1, but got {steps}")
    with StepsDisplay(1) as display:
        display.load("torch")
        from gclip.doctor import Doctor
        from gclip.doctor.training_file import training_of

        display.doing(f"reading {training}")
        with training_of(training) as found, Doctor(found.model, found.optimizer) as examined:
            display.begin(f"watching {training}")
            for step in range(1, steps + 1):
                found.run()
                display.update(step, steps)
            display.end()
        findings = examined.findings
    if json:
        screen.echo_json({"training": training, **findings.as_dict()})
    else:
        screen.echo(findings.text(screen.prose_width()))
    if findings.wrong:
        raise typer.Exit(1)
