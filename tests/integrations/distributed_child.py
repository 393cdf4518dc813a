"""Two processes in which Lightning, Transformers and Accelerate train; `test_distributed.py` starts
them by torchrun.

``python -m torch.distributed.run --nproc-per-node 2 distributed_child.py FOLDER`` writes what each
process came to into FOLDER. Each has half of each batch of `frameworks.by_hand`.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

import gclip
from tests.integrations.frameworks import BATCH, STEPS, adam, dataset, loss_of, network

HALF = BATCH // 2
STRATEGIES = {
    "memory": "adagc(warmup=3)",
    "skip": "norm(max_norm=0.9, rule=skip)",
    "elements": "spam(threshold=10, warmup=3, decay=0.9)",
    "update": "clippy",
}


def outcome(model: nn.Module, handle: Any) -> dict[str, Any]:
    weights, spread = {}, 0
    for name, param in model.named_parameters():
        found: Any = param.detach()
        spread += hasattr(found, "full_tensor")
        weights[name.removeprefix("module.").removeprefix("net.")] = (
            found.full_tensor() if hasattr(found, "full_tensor") else found.clone()
        )
    columns = handle.record.arrays()
    kept = ("norm", "clipped_norm", "clipped", "skipped")
    return {
        "weights": weights,
        "sharded": spread,
        **{name: torch.from_numpy(columns[name]) for name in kept},
    }


# -- Lightning -----------------------------------------------------------------------------------


def lightning(strategy: str, folder: Path, *, sharded: bool) -> dict[str, Any]:
    import lightning.pytorch as L
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    from gclip.integrations.lightning import Clipping

    class Net(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def configure_model(self) -> None:
            if sharded:
                fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return loss_of(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return adam(self.net.parameters())

        def train_dataloader(self) -> Any:
            rows: Any = DistributedSampler(dataset(), shuffle=False)
            return DataLoader(dataset(), batch_size=HALF, sampler=rows)

    model, callback = Net(), Clipping(strategy)
    how: Any = DDPStrategy(process_group_backend="gloo")
    if sharded:
        how = ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo"
        )
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[callback],
        accelerator="cpu", devices=2, strategy=how, use_distributed_sampler=False,
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model)
    return outcome(model.net, callback.handles[0])


# -- Transformers --------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.net(x), labels)}


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.inputs, self.targets = dataset().tensors

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.inputs[index], "labels": self.targets[index]}


def transformers(strategy: str, folder: Path, *, resumed: bool = False) -> dict[str, Any]:
    import transformers as hf

    from gclip.integrations.transformers import ClippingCallback

    class InOrder(hf.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    for checkpoint in (None, str(folder / "checkpoint-20")) if resumed else (None,):
        args = hf.TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=HALF, use_cpu=True, save_steps=20,
            disable_tqdm=True, report_to="none", dataloader_pin_memory=False, max_grad_norm=0,
            max_steps=STEPS, logging_strategy="no", save_strategy="steps" if resumed else "no",
        )  # fmt: skip
        model, callback = Net(), ClippingCallback(strategy)
        optimizer = adam(model.parameters())
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        trainer = InOrder(
            model, args, train_dataset=Rows(), callbacks=[callback],
            optimizers=(optimizer, constant),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=checkpoint)
    return outcome(model, callback.handle)


# -- Accelerate ----------------------------------------------------------------------------------


def accelerate(strategy: str, *, sharded: bool) -> dict[str, Any]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model: Any = network()
    if sharded:  # FSDP2 by hand, so that Accelerate prepares what is spread already
        model = fully_shard(model)
    optimizer = adam(model.parameters())
    loader = DataLoader(dataset(), batch_size=HALF)
    if sharded:
        optimizer, loader = accelerator.prepare(optimizer, loader)
    else:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    handle = gclip.attach(optimizer, strategy, model=model)
    for x, y in loader:
        accelerator.backward(loss_of(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
    return outcome(model, handle)


def work(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, strategy in STRATEGIES.items():
        for sharded, how in ((False, "ddp"), (True, "fsdp2")):
            out[f"lightning {how} {name}"] = lightning(strategy, folder, sharded=sharded)
            out[f"accelerate {how} {name}"] = accelerate(strategy, sharded=sharded)
        out[f"transformers ddp {name}"] = transformers(strategy, folder / name)
    out["transformers ddp resumed"] = transformers("adagc(warmup=3)", folder / "re", resumed=True)
    return out


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    where = Path(sys.argv[1])
    torch.save(work(where), where / f"{os.environ['RANK']}.pt")
    dist.destroy_process_group()
