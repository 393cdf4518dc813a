"""What decides a run's outcome? Every field of `RunConfig`, and nothing else.

`RunConfig.key`, the SHA-256 of its canonical JSON, is the identity under which a result is stored.
A config is complete once made: what was left open (the optimizer's own learning rate, the
digest of the strategy's code) is filled in, so that two ways of asking for a run are one run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.core.numbers import shown
from gclip.errors import UsageError, unknown
from gclip.training.checks import check
from gclip.training.data_split import Split, select_for

if TYPE_CHECKING:
    from gclip.training.dataset import Dataset
    from gclip.training.problem_data import ProblemData

_FILLED: Any = None  # the default of a field that is filled in from others


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what one training run comes to.

    The defaults are a setting near the edge of stability, where clipping strategies differ by far
    in a second of training. `task_defaults` gives each task its own; what a problem says about
    model, optimizer, batch size and epochs stands where these are left out.

    Attributes:
        task: the spelling of a problem: ``digits`` (embedded images), ``cifar10`` (official
            batches or class folders), ``adding(length=200)``; `gclip list --problems` has them all.
        problem_code: digest of the problem's source, so that editing it makes another run; "" for
            the image tasks that come with gclip.
        data: which data was used: the start of its digest, "" for the embedded digits.
        fraction: share of the training images that is used, of every class, in (0, 1].
        split: what accuracy and loss are measured on: ``test``, or ``validation`` (a fixed tenth
            of every class's training images is held out for it, and the test images are never
            looked at).
        selection: version of the rules by which `fraction` and `split` choose images and
            normalise them (`data_split.VERSION`), filled in; 0 where they have no say, and in runs
            stored before there were versions.
        model: the spelling of a model, one of `models.names`, made canonical; "" where the problem
            builds networks of its own.
        model_code: digest of the source of a plugin's model, so that editing it makes another run;
            "" for those that ship with gclip.
        dropout: share of the activations dropped in training, in [0, 1), of a model that has such
            a setting; 0 for what the model's spelling says.
        optimizer: one of `optimizers.names`.
        lr: the (highest) learning rate; the optimizer's own by default.
        momentum: of sgd (0.9 by default), rmsprop (0) and muon (0.95); None for the others.
        weight_decay: as torch's optimizers take it.
        optimizer_settings: further arguments of torch's optimizer, such as ``{"eps": 1e-7}``.
        schedule: of the learning rate per step, skipped ones included: ``constant``, ``cosine`` or
            ``onecycle``.
        batch_size: images per forward pass.
        accumulate: forward passes per optimizer step; gradients are those of one batch of
            ``batch_size * accumulate`` images, and are clipped once.
        epochs: passes over the training images.
        precision: ``fp32``, or ``bf16`` (autocast).
        augment: flips and random crops.
        normalize: inputs by mean and deviation of the images learned from (``standard``) or to
            (x - 0.5) / 0.5 (``half``).
        strategy: the spelling of the clipping strategy, made canonical; ``players(…)`` gives each
            player of a problem its own.
        watch: ``layer`` keeps the norm of each layer over time beside the record; "" does not.
        code: digest of the strategy's source, so that editing it makes another run.
        stepping: version of the rules by which steps are skipped and learning rates set
            (`stepping.VERSION`), filled in; 0 where they have no say, and in runs stored before
            there were versions.
        nonfinite: what to do about gradients that are not finite: ``skip``, ``raise``, ``keep``.
        label_noise: share of the training labels replaced by another class, in [0, 1).
        gradient_noise: heavy-tailed noise added to every gradient before clipping, as a multiple
            of each tensor's root mean square; see `gclip.training.disturbances`.
        spikes: chance of a step whose gradients are a thousand times too large, in [0, 1].
        seed: of weights, batch order and augmentation; a number ≥ 0.

    Raises:
        UsageError: naming all the values that break a rule, in one sentence.

    Example:
        >>> config = RunConfig(strategy="norm", optimizer="adam", seed=3)
        >>> config.strategy, config.lr
        ('norm', 0.001)
        >>> config.key == RunConfig(strategy="norm(max_norm=1)", optimizer="adam", seed=3).key
        True
        >>> config.replace(optimizer="sgd").lr
        0.15
    """

    task: str = "digits"
    data: str = ""
    fraction: float = 1.0
    split: str = "test"
    selection: int = _FILLED
    model: str = _FILLED
    model_code: str = ""
    dropout: float = 0.0
    optimizer: str = _FILLED
    lr: float = _FILLED
    momentum: float | None = None
    weight_decay: float = 0.0
    optimizer_settings: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    schedule: str = "constant"
    batch_size: int = _FILLED
    accumulate: int = 1
    epochs: int = _FILLED
    precision: str = "fp32"
    augment: bool = False
    normalize: str = "standard"
    strategy: str = "none"
    code: str = ""
    stepping: int = _FILLED
    nonfinite: str = "skip"
    label_noise: float = 0.0
    gradient_noise: float = 0.0
    spikes: float = 0.0
    problem_code: str = ""
    watch: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in check(self).items():
            object.__setattr__(self, name, value)

    @property
    def label(self) -> str:
        """What a table calls this run: its strategy's spelling."""
        return self.strategy

    @property
    def settings(self) -> dict[str, Any]:
        """`optimizer_settings` as keyword arguments."""
        return dict(self.optimizer_settings)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the run's identity."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The config as one line of canonical JSON: sorted keys, every field.

        Fields that came later stand in it only where they are set, so that old keys stay valid.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in _LATER:
            if not values[name]:
                del values[name]
        values["optimizer_settings"] = self.settings
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Read what `to_json` wrote.

        Raises:
            UsageError: for anything else.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"a run's config is JSON, but this does not read: {error}") from None
        return cls.of(values)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunConfig:
        """A config from a mapping.

        Raises:
            UsageError: an unknown field, with a suggestion; or a value that breaks a rule.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"a run's config maps fields to values, but got {shown(values)}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                unknown("field of RunConfig", name, known)
        # With the digest of its code it was complete when it was written: what it lacks came later.
        before = _BEFORE if values.get("code") else {}
        return cls(**{**before, **values})

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some fields changed; what depended on an old value is filled in anew.

        Another strategy or model brings the digest of its own code; another optimizer its own
        learning rate, momentum and settings, as far as the changes do not name them; another task
        is other data and code; another split, fraction or normalisation follows today's rules of
        selection, another strategy or schedule today's of stepping.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for cause, effects in _DEPENDENT.items():
            if cause in changes and changes[cause] != values[cause]:
                values |= effects
        return RunConfig.of(values | changes)

    def select_from(self, dataset: Dataset) -> Split:
        """The images of `dataset` that this run learns from and is measured on.

        Raises:
            UsageError: as `gclip.training.data_split.select_for`.
        """
        return select_for(
            dataset,
            fraction=self.fraction,
            split=self.split,
            normalize=self.normalize,
            version=self.selection,
        )

    def with_data(self, data: Dataset | ProblemData) -> RunConfig:
        """A copy whose `data` names the data actually used."""
        same = data.identity == self.data
        return self if same else self.replace(data=data.identity)


_LATER = (
    *("label_noise", "gradient_noise", "spikes", "selection", "stepping"),
    *("problem_code", "watch", "dropout", "model_code"),
)
# What a config that was written before there was such a field says, where it is not the default.
_BEFORE = {"selection": 0, "stepping": 0}

_DEPENDENT: dict[str, dict[str, Any]] = {
    "strategy": {"code": "", "stepping": None},
    "schedule": {"stepping": None},
    "model": {"model_code": ""},
    "optimizer": {"lr": None, "momentum": None, "optimizer_settings": ()},
    "task": {"data": "", "problem_code": ""},
    **{cause: {"selection": None} for cause in ("fraction", "split", "normalize")},
}
