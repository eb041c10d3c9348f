"""Trainings in two processes, for test_several_processes.py; spawned processes import this file."""

import os
import warnings

import numpy as np
import torch


def schedules(sharded=False):
    import phasescope as ps

    return {name: ps.every(1) for name in ("gradients", "norms") if name == "norms" or not sharded}


def consumed(model):
    """The gradient as one vector; of a sharded model the norms of its whole tensors."""
    gradients = [p.grad for p in model.parameters()]
    if hasattr(gradients[0], "full_tensor"):
        return np.array([g.full_tensor().norm().item() for g in gradients])
    return torch.cat([g.reshape(-1) for g in gradients]).numpy().copy()


def as_rank(rank, port):
    """What a launcher tells each process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    warnings.simplefilter("ignore")  # of launchers and libraries; the recorder is tested elsewhere
    torch.set_num_threads(1)


def fsdp2_on_cpu():
    """Let accelerate shard on processors, as it does on GPUs only."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def huggingface(rank, port, folder, resume, *, sharded=False):
    """Eight updates with a checkpoint after three; rank 0 keeps what it saw consumed."""
    as_rank(rank, port)
    if sharded:
        fsdp2_on_cpu()
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback
    from transformers import TrainingArguments as Arguments

    import integrations.conftest  # noqa: F401 - hides tests/datasets from transformers
    from phasescope.integrations.huggingface import RecorderCallback

    seen = []

    class Observer(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            seen.append(consumed(model))

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    ids = torch.randint(0, 50, (32, 8), generator=torch.Generator().manual_seed(1))
    arguments = Arguments(
        str(folder), num_train_epochs=2, per_device_train_batch_size=2, save_steps=3,
        gradient_accumulation_steps=2, max_grad_norm=0.5, use_cpu=True, ddp_backend="gloo",
        report_to="none", logging_steps=1, disable_tqdm=True,
        fsdp=sharded,
        fsdp_config={"fsdp_version": 2, "auto_wrap_policy": "NO_WRAP"} if sharded else None,
    )  # fmt: skip
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
        callbacks=[RecorderCallback(folder / "run", save=schedules(sharded)), Observer()],
    )
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-3") if resume else None)
    if rank == 0:
        np.save(folder / "seen.npy", np.array(seen))


def huggingface_sharded(rank, port, folder, resume):
    huggingface(rank, port, folder, resume, sharded=True)


def lightning(rank, port, folder, resume, *, sharded=False):
    """Two epochs of two updates each, and two more from the checkpoint behind them."""
    as_rank(rank, port)
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    from phasescope.integrations.lightning import RecorderCallback

    seen = []

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 3)

        def configure_model(self):
            if sharded:
                fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx % 2:
                seen.append(consumed(self))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    torch.manual_seed(0)
    module = Module()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 5, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    data = torch.utils.data.TensorDataset(x, y)
    parts = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=parts if sharded else "ddp",
        max_epochs=4 if resume else 2, accumulate_grad_batches=2,
        gradient_clip_val=None if sharded else 0.1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[RecorderCallback(folder / "run", save=schedules(sharded))],
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    trainer.fit(module, loader, ckpt_path=folder / "one.ckpt" if resume else None)
    trainer.save_checkpoint(folder / "one.ckpt")
    if rank == 0:
        np.save(folder / "seen.npy", np.array(seen))


def lightning_sharded(rank, port, folder, resume):
    lightning(rank, port, folder, resume, sharded=True)
