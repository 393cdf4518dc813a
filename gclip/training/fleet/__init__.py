"""Many runs of one shape as one program: `train_fleet` and what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip.training.fleet.clipper import FleetClipper as FleetClipper
    from gclip.training.fleet.stack import stack as stack
    from gclip.training.fleet.stack import unstack as unstack
    from gclip.training.fleet.train import check_fleet as check_fleet
    from gclip.training.fleet.train import fleet_key as fleet_key
    from gclip.training.fleet.train import train_fleet as train_fleet

# Loaded on first use: whoever asks only for one of them need not wait for all.
_HOME = {
    "FleetClipper": "clipper",
    "stack": "stack",
    "unstack": "stack",
    "check_fleet": "train",
    "fleet_key": "train",
    "train_fleet": "train",
}

__all__ = sorted(_HOME)

__getattr__ = lazy_attributes(__name__, _HOME)
