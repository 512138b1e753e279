"""Support for verl on a machine without an accelerator: Ray, FSDP over gloo, vLLM on CPU. Edits no installed files.

Active only if torch was built without support for any accelerator (`accelerator`).
"""

from sspo_verl.plugin.cpu.accelerator import has_accelerator_support


def activate_if_no_accelerator() -> bool:
    """Make verl run on this machine's CPU if torch supports nothing else. Returns whether it did."""
    if has_accelerator_support():
        return False
    from sspo_verl.plugin.cpu.for_verl import activate

    activate()
    return True
