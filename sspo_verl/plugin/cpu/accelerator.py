"""Look for an accelerator that torch can drive."""

import torch


def has_accelerator_support() -> bool:
    """True if this build of torch (or a device plugin of it, such as torch_npu) can drive an accelerator at all.

    Asking whether a GPU is visible would not do: on a GPU cluster Ray hides the GPUs from every process that has not
    asked for one.
    """
    return torch.accelerator.current_accelerator() is not None
