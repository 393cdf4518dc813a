"""One player of a run: a network, its optimizer, its clipper, and the steps it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from gclip.clipping.clipper import Clipper
from gclip.clipping.layer_norms import LayerNorms
from gclip.clipping.nonfinite import FirstNonfinite
from gclip.clipping.report import ClipReport
from gclip.core.strategy import Chain, Strategy
from gclip.errors import UsageError
from gclip.training import optimizers
from gclip.training.config import RunConfig
from gclip.training.disturbances import Disturbance
from gclip.training.loop import build_optimizer
from gclip.training.random_streams import RandomStream
from gclip.training.stepping import Stepper, clip_and_step


class Player:
    """A network that is trained.

    Args:
        name: of the player.
        network: on `device`.
        strategy: that clips its gradients.
        config: of the run.
        total_steps: the most it makes; None where nobody knows.
        alone: whether it is the only player, so that its loss reaches no other parameters.
        layers: records the norms of its layers, where the run is watched.

    Attributes:
        before_step: called at each step, skipped ones too, when its gradients have been clipped.
        step_count: optimizer steps done, skipped ones too.
        lr: the learning rate of the latest step.

    Raises:
        UsageError: the strategy clips single examples; or a schedule needs the number of steps.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        strategy: Strategy | Chain,
        config: RunConfig,
        device: torch.device,
        *,
        total_steps: int | None,
        alone: bool,
        disturbance: Disturbance,
        stream: RandomStream,
        layers: LayerNorms | None = None,
    ) -> None:
        self.name, self.network = name, network
        self._config, self._disturbance, self._stream = config, disturbance, stream
        self._layers = layers
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._reached = None if alone else self._parameters
        self.optimizer = build_optimizer(config, network.parameters(), device)
        self._stepper = Stepper(self.optimizer)
        if total_steps is None and config.schedule != "constant":
            raise UsageError(
                f"the schedule {config.schedule} needs the number of steps, which task "
                f"{config.task} does not say (batches_per_epoch); take constant"
            )
        self._rates = (
            None
            if total_steps is None or config.schedule == "constant"
            else optimizers.learning_rates(config.schedule, config.lr, total_steps)
        )
        self.clipper = Clipper(
            network,
            strategy,
            nonfinite=cast(Any, config.nonfinite),
            optimizer=self.optimizer,
            total_steps=total_steps,
            max_consecutive_skips=None,  # such a run has diverged: see `DivergenceMonitor`
        )
        if self.clipper.per_sample:
            raise UsageError(
                f"{strategy} clips single examples, whose gradients task {config.task} does not "
                "give: it makes one loss of a batch; take a strategy of the side gradient or update"
            )
        self.before_step: Callable[[], None] | None = None
        self.step_count, self.lr = 0, config.lr

    def train_step(self, loss: Tensor, clear: Callable[[], None]) -> ClipReport:
        """Backward, clip, step.

        Args:
            loss: of this player, shape ().
            clear: takes the gradients of all players away, afterwards.
        """
        self._set_rate()
        torch.autograd.backward(loss, inputs=self._reached)
        if self._disturbance:
            self._disturbance.apply(self._parameters)
        report = clip_and_step(
            self.clipper,
            self._stepper,
            stream=self._stream,
            layers=self._layers,
            name=self.name,
            clipped=self.before_step,
        )
        clear()
        self.step_count += 1
        return report

    def clear(self) -> None:
        """Take the gradients away."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clipper": self.clipper.state_dict(),
            **self.clipper.record.location(),
            "noise": self._disturbance.generator.get_state(),
            "step_count": self.step_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.clipper.load_state_dict(state["clipper"])
        self.clipper.record.locate(FirstNonfinite.from_dict(state.get("first_not_finite")))
        self._disturbance.generator.set_state(state["noise"])
        self.step_count = state["step_count"]

    def _set_rate(self) -> None:
        if self._rates is None:
            return
        if self.step_count >= len(self._rates):
            raise UsageError(
                f"problem {self._config.task}: {self.name} was stepped more than the "
                f"{len(self._rates)} times that batches_per_epoch and updates say; put right which "
                "of them is too small"
            )
        self.lr = self._rates[self.step_count]
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
