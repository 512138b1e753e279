"""Checks the platform for training here: CUDA devices, or our CPU platform if torch supports nothing else."""

from __future__ import annotations

from pathlib import Path

from sspo_verl.tools.doctor.check import FAILED, OK, WARNING, Check
from sspo_verl.tools.doctor.processes import Notes

NAME = "platform"
OUR_PLATFORM = "sspo_verl.plugin.cpu.platform"


def check_machine(driver: Notes) -> list[Check]:
    found = driver.value("machine")
    if found is None:
        return [Check(NAME, FAILED, driver.why_not("machine"), "Fix what the message names; torch or verl fails here.")]
    return [_cpu(found) if found["built for"] is None else _accelerator(found)]


def _accelerator(found: dict) -> Check:
    kind = found["built for"]
    if not found["count"]:
        fix = (
            "nvidia-smi shows the driver; CUDA_VISIBLE_DEVICES hides devices if it is set. A machine without a GPU "
            "needs a CPU build of torch: SSPO_PLATFORM=cpu bash scripts/env.sh. Where only the workers of a cluster "
            "have GPUs, run this on a worker."
        )
        return Check(NAME, FAILED, f"torch {found['torch']} is built for {kind} and sees no device", fix)
    names = [f"{device['name']} ({device['bytes'] / 2**30:.0f} GiB)" for device in found["devices"]]
    text = f"{found['count']} x {kind}" + (f": {', '.join(names)}" if names else "")
    if found["platform"] != kind:
        fix = "VERL_PLATFORM overrides verl's own choice: unset it."
        return Check(NAME, FAILED, f"{text}, but verl chose the platform {found['platform']}", fix)
    return Check(NAME, OK, text)


def _cpu(found: dict) -> Check:
    text = f"CPU, {found['cores']} cores; torch {found['torch']} supports no accelerator"
    if found["platform"] != "cpu" or found["platform of"] != OUR_PLATFORM:
        fix = "The plugin brings verl's CPU platform: see 'plugin in the driver'. VERL_PLATFORM must not be set."
        return Check(NAME, FAILED, f"{text}, and verl chose {found['platform']} of {found['platform of']}", fix)
    if _has_nvidia_gpu():
        fix = "SSPO_PLATFORM=cuda bash scripts/env.sh makes an environment that uses it."
        return Check(NAME, WARNING, f"{text}, although this machine has an NVIDIA GPU", fix)
    return Check(NAME, OK, f"{text}; verl uses sspo_verl's platform")


def _has_nvidia_gpu(devices: Path = Path("/dev")) -> bool:
    return any(device.name.removeprefix("nvidia").isdigit() for device in devices.glob("nvidia*"))
