"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

from gclip.cli import study_list, study_report, study_run, study_work
from gclip.cli.app import App

app = App(no_args_is_help=True, help="Tune strategies with Optuna, and look at studies.")
for module in (study_run, study_list, study_work, study_report):
    module.add_to(app)
