"""verl on a machine without an accelerator: Ray, FSDP over gloo, vLLM on CPU. Edits no installed file.

Active only where torch was built without support for any accelerator. Asking whether a GPU is visible would not do:
on a GPU cluster Ray hides the GPUs from every process that has not asked for one.
"""

import torch


def has_accelerator_support() -> bool:
    """Whether this build of torch (or a device plugin of it, such as torch_npu) can drive an accelerator at all."""
    return torch.accelerator.current_accelerator() is not None


def activate_if_no_accelerator() -> bool:
    """Make verl run on this machine's CPU if torch can drive nothing else. Returns whether it did."""
    if has_accelerator_support():
        return False
    from sspo_verl.cpu import for_verl

    for_verl.activate()
    return True
