"""Changes to verl on a machine without an accelerator. Each says why it is needed."""

import os

import torch

from sspo_verl.plugin.cpu.vllm_version import answer_for_vllm
from sspo_verl.plugin.hook import after_import


def activate() -> None:
    """Register the platform "cpu", and queue each change until its module is imported."""
    from sspo_verl.plugin.cpu import platform  # noqa: F401  registers itself

    answer_for_vllm()
    # verl registers its FSDP engine for "cuda" and "npu" only; this is verl's own override for the look-up.
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
    after_import("verl.utils.distributed", _plain_gloo)
    after_import("verl.utils.fsdp_utils", _no_pinned_memory)
    after_import("verl.utils.fsdp_utils", _saved_weights_are_copies)
    after_import("torch.distributed.fsdp._init_utils", _broadcast_cpu_states)


def _plain_gloo(distributed) -> None:
    """Use plain gloo: verl asks for "cpu:gloo,<device>:<backend>", in which torch rejects the second "cpu"."""
    initialize = distributed.initialize_global_process_group_ray

    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return initialize(timeout_second, backend or "gloo")

    distributed.initialize_global_process_group_ray = initialize_global_process_group_ray


def _no_pinned_memory(fsdp_utils) -> None:
    """Disable pinned memory: verl builds the frozen reference model with it, and only an accelerator can pin."""
    torch.Tensor.pin_memory = lambda self, device=None: self


def _saved_weights_are_copies(fsdp_utils) -> None:
    """Copy saved weights. `separate_async` saves them with `.cpu()` between the updates of a step, and later computes
    old_log_prob with them. For CPU tensors that is not a copy: the saved weights would keep training, and every ratio
    would be 1."""
    save = fsdp_utils.fsdp2_sharded_save_to_cpu

    def fsdp2_sharded_save_to_cpu(model):
        state, global_spec = save(model)
        return {name: (tensor.clone(), spec) for name, (tensor, spec) in state.items()}, global_spec

    fsdp_utils.fsdp2_sharded_save_to_cpu = fsdp2_sharded_save_to_cpu


def _broadcast_cpu_states(fsdp_init) -> None:
    """Let FSDP1 (verl's default strategy) broadcast a module's CPU tensors, which it refuses although gloo can."""
    fsdp_init._check_module_states_for_sync_module_states = lambda module_states: None
