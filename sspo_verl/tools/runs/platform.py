"""Chooses the platform for training on this machine: the recipes' `platform=cpu` or `platform=gpu`."""

from __future__ import annotations


def choose_platform() -> str:
    """The platform, "cpu" or "gpu". Raises ValueError if torch supports an accelerator and none is visible."""
    import torch

    from sspo_verl.plugin.cpu.accelerator import has_accelerator_support

    if not has_accelerator_support():
        return "cpu"
    if torch.cuda.is_available():
        return "gpu"
    raise ValueError(
        f"This torch ({torch.__version__}) was built for an accelerator, but none is visible. Make one visible "
        "(CUDA_VISIBLE_DEVICES), or install the CPU build of torch."
    )
