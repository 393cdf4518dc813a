"""``gclip store``: what is in a store, whether it is whole, and a tidy one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.app import App
from gclip.cli.options import Json, StoreFolder
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.results.care import Done
    from gclip.results.inventory import Found
    from gclip.results.run_list import Row
    from gclip.tuning.study_check import CheckedStudy

app = App(no_args_is_help=True, help="See what a store holds, check it, and put it in order.")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def _filter(name: str, help: str, metavar: str = "NAME") -> Any:
    return typer.Option(name, metavar=metavar, help=help, show_default="all")


def app_for(_: Sequence[str]) -> App:
    """All its commands."""
    return app


@app.command("list")
def list_runs(
    store: StoreFolder = Path("runs"),
    task: Annotated[str | None, _filter("--task", "Runs of this task.", "TASK")] = None,
    model: Annotated[
        str | None, _filter("--model", "Which net: lenet, or a spelling such as mlp(width=64).")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help='A name or a spelling such as "norm(max_norm=0.1)"; a name is all its settings.',
            show_default="all",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the runs.", show_default="all")
    ] = None,
    status: Annotated[
        str | None,
        _filter("--status", "finished, diverged, pruned, failed, under way or damaged.", "STATUS"),
    ] = None,
    json: Json = False,
) -> None:
    """List the runs of a store, the latest first, and those under way.

    \b
    Examples:
      gclip store list
      gclip store list --status failed
      gclip store list --task digits -s agc --seed 0 --json
    """
    from gclip.results import Store
    from gclip.results.run_list import runs_in

    opened = Store(store)
    rows = runs_in(opened, task=task, model=model, strategy=strategy, seed=seed, status=status)
    if json:
        screen.echo_json({"store": str(store), "runs": [row.to_dict() for row in rows]})
        return
    if rows:
        screen.echo_table(_table(rows))
        screen.echo()
    counts = Counter(row.status for row in rows)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    size = screen.bytes_text(sum(row.size for row in rows))
    screen.echo(f"{screen.plural(len(rows), 'run')} in {store}, {size}{': ' if said else ''}{said}")


@app.command("check")
def check(store: StoreFolder = Path("runs"), json: Json = False) -> None:
    """Read everything in a store and verify its seals; nothing is changed.

    Exit code 1 if anything is damaged, naming each.

    \b
    Examples:
      gclip store check
      gclip store check --store runs --json
    """
    load("torch")
    from gclip.results import Store
    from gclip.results.inventory import DAMAGED, look, size_of

    opened = Store(store)
    things, studies = look(opened), _studies(opened)
    bad = [each for each in things if each.kind in DAMAGED]
    bad_studies = [each for each in studies if each.damaged]
    if json:
        screen.echo_json(
            {
                "store": str(store),
                "bytes": size_of(store),
                "counts": dict(Counter(each.kind for each in things)),
                "runs": dict(Counter(each.why for each in things if each.kind == "run")),
                "things": [each.to_dict() for each in things if each.kind != "run"],
                "studies": [
                    {
                        "path": str(each.path),
                        "bytes": each.size,
                        "trials": each.trials,
                        "damaged": each.damaged,
                    }
                    for each in studies
                ],
                "whole": not bad and not bad_studies,
            }
        )
    else:
        _print_check(store, things, studies)
    if bad or bad_studies:
        raise typer.Exit(1)


@app.command("repair")
def repair(store: StoreFolder = Path("runs"), dry_run: DryRun = False, json: Json = False) -> None:
    """Set damaged runs and checkpoints aside, and remove half-written files of dead processes.

    What is set aside is moved to STORE/.damaged, for you to look at; the same command that made a
    run makes it again. Databases of studies are left as they are.

    \b
    Examples:
      gclip store repair --dry-run
      gclip store repair --store runs
    """
    load("torch")
    from gclip.results import Store, care

    done = care.repair(Store(store), dry_run=dry_run)
    _report(done, dry_run, json, "nothing is to be repaired")


@app.command("gc")
def collect(
    store: StoreFolder = Path("runs"),
    days: Annotated[
        float, typer.Option("--days", help="Keep what was set aside for so long.")
    ] = 30.0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove what is of no use: checkpoints of runs that have ended, half-written files of dead
    processes, and what was set aside long ago.

    Never a run, and never the checkpoint of one that is under way.

    \b
    Examples:
      gclip store gc --dry-run
      gclip store gc --days 7
    """
    load("torch")
    from gclip.results import Store, care

    done = care.collect(Store(store), days=days, dry_run=dry_run)
    _report(done, dry_run, json, "nothing is to be removed")


def _studies(store: Any) -> list[CheckedStudy]:
    if not (store.path / "studies").is_dir():
        return []  # Optuna takes a while to load
    load("optuna")
    from gclip.tuning.study_check import check_studies

    return check_studies(store)


def _print_check(store: Path, things: Sequence[Found], studies: Sequence[CheckedStudy]) -> None:
    from gclip.results.inventory import size_of

    screen.echo_wrapped(f"{store}: {screen.bytes_text(size_of(store))}")
    runs = [each for each in things if each.kind == "run"]
    counts = Counter(each.why for each in runs)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    size = screen.bytes_text(sum(each.size for each in runs))
    screen.echo_wrapped(
        f"{screen.plural(len(runs), 'run')} whole, {size}{f': {said}' if said else ''}"
    )
    whole = [each for each in studies if not each.damaged]
    if studies:
        screen.echo_wrapped(f"{len(whole)} of {len(studies)} studies whole")
    for kind in dict.fromkeys(each.kind for each in things if each.kind != "run"):
        some = [each for each in things if each.kind == kind]
        screen.echo_wrapped(f"{len(some)} {kind}, {screen.bytes_text(sum(e.size for e in some))}:")
        for each in some:
            screen.echo(f"  {each.path}{f': {each.why}' if each.why else ''}")
    for study in studies:
        if study.damaged:
            screen.echo_wrapped(f"damaged study: {study.damaged}")
    if any(each.kind in ("damaged run", "damaged checkpoint") for each in things):
        screen.echo_wrapped(f"gclip store repair --store {store} sets what is damaged aside.")


def _report(done: Sequence[Done], dry_run: bool, json: bool, nothing: str) -> None:
    """What was done; exit with 1 where some of it could not be."""
    if json:
        screen.echo_json(
            {
                "dry_run": dry_run,
                "done": [
                    {
                        **one.found.to_dict(),
                        "action": one.action,
                        "to": None if one.to is None else str(one.to),
                        "failed": one.failed,
                    }
                    for one in done
                ],
            }
        )
    for one in () if json else done:
        why = f" ({one.found.why})" if one.found.why else ""
        what = f"{one.found.kind} {one.found.path}{why}"
        if one.failed:
            screen.echo_wrapped(f"could not {one.action} {what}: {one.failed}")
        elif dry_run:
            screen.echo_wrapped(f"would {one.action} {what}")
        elif one.to is not None:
            screen.echo_wrapped(f"set aside {what}: moved to {one.to}")
        else:
            screen.echo_wrapped(f"removed {what}")
    if not json:
        size = screen.bytes_text(sum(one.found.size for one in done if one.action == "remove"))
        screen.echo_wrapped(
            f"{screen.plural(len(done), 'thing')}, {size} to remove" if done else nothing
        )
    if any(one.failed for one in done):
        raise typer.Exit(1)


def _table(rows: Sequence[Row]) -> TextTable:
    from gclip.results.metric_text import score_with_unit

    table = TextTable(
        columns=[
            Column(heading="run", words=True),
            Column(heading="task", words=True, leaves=2),
            Column(heading="model", words=True, leaves=3),
            Column(heading="strategy", words=True),
            Column(heading="seed"),
            Column(heading="score"),
            Column(heading="metric", words=True, leaves=4),
            Column(heading="status", words=True),
            Column(heading="age"),
            Column(heading="size", leaves=1),
        ]
    )
    for row in rows:
        score = "–" if row.metric is None else score_with_unit(row.metric, row.score)
        status = f"{row.status}, {row.message}" if row.status == "under way" else row.status
        table.add(
            row.key[:12],
            row.task or "–",
            row.model or "–",
            row.strategy or "–",
            "–" if row.seed is None else str(row.seed),
            score,
            "–" if row.metric is None else row.metric.name,
            status,
            age_text(row.age),
            screen.bytes_text(row.size),
        )
    return table


def age_text(seconds: float) -> str:
    """``3 min``, ``2 h``, ``5 d``."""
    for limit, unit, one in ((60, "s", 1), (3600, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / one:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
