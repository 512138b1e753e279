"""The platform that a training runs on here: the recipes' `platform=cpu` or `platform=gpu`."""

from __future__ import annotations


def choose_platform() -> str:
    """Raises ValueError where torch can drive an accelerator and none is visible."""
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
