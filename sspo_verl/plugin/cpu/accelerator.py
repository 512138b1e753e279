"""Detects whether torch supports an accelerator."""

import torch


def has_accelerator_support() -> bool:
    """True if this build of torch (or one of its device plugins, such as torch_npu) supports an accelerator at all.

    Whether a GPU is visible does not tell: on a GPU cluster, Ray hides the GPUs from every process that did not request
    one.
    """
    return torch.accelerator.current_accelerator() is not None
