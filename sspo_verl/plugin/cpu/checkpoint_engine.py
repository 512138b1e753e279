"""Checkpoint engine `cpu_file`: sends weights to samplers in other processes (verl's `separate_async`) through a file.

For CPU runs on one machine; verl's own engines need NCCL, NIXL, HCCL or Mooncake. recipes/platform/cpu.yaml sets this
module as verl's `rollout.checkpoint_engine.custom_backend_module`; a run selects it with
`rollout.checkpoint_engine.backend=cpu_file`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

POLL_SECONDS = 0.01


@CheckpointEngineRegistry.register("cpu_file")  # pyright: ignore[reportAttributeAccessIssue]  verl's has no self
class FileCheckpointEngine(CheckpointEngine):
    """One end of a transfer. The master, the trainer's rank 0, writes all weights to a new file for each transfer; each
    sampler reads it once it is complete."""

    def __init__(self, bucket_size: int, is_master: bool = False):
        """bucket_size: unused; verl passes it for engines that send in pieces."""
        self.is_master = is_master
        self.file: Path | None = None

    def prepare(self) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]  verl passes it on unchanged
        """Path of the master's file for the next transfer, in a folder that only this user can access."""
        return os.path.join(tempfile.mkdtemp(prefix="sspo_weights_"), "weights.pt") if self.is_master else None

    @classmethod
    def build_topology(cls, actor_wg_world_size, rollout_world_size, metadata):
        """metadata: what `prepare` returned on each, the master first."""
        return {"file": metadata[:1] * actor_wg_world_size}, {"file": metadata[:1] * rollout_world_size}

    def init_process_group(self, file: str):  # pyright: ignore[reportIncompatibleMethodOverride]  of build_topology
        self.file = Path(file)

    def finalize(self):
        """Clean up after a transfer, when all have read."""
        if self.is_master:
            shutil.rmtree(self._current.parent)
        self.file = None

    @torch.no_grad()
    async def send_weights(self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None):
        """Send the weights. All trainer ranks iterate over them, because gathering a weight involves all ranks; the
        master saves them."""
        kept = {}
        for name, weight in weights:
            if self.is_master:
                kept[name] = weight.detach().clone()  # for a view, torch.save would write its complete storage
        if self.is_master:
            part = self._current.with_suffix(".part")
            torch.save(kept, part)
            part.replace(self._current)
        return {}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor], None]:  # pyright: ignore[reportIncompatibleMethodOverride]  verl annotates it as a coroutine
        while not self._current.exists():
            await asyncio.sleep(POLL_SECONDS)
        for name, weight in torch.load(self._current, weights_only=True, mmap=True).items():
            yield name, weight

    @property
    def _current(self) -> Path:
        assert self.file is not None, "init_process_group comes before a transfer"
        return self.file
