"""Slurm's allocation for this job on this node, from its variables. Raises ValueError, naming an unreadable one."""

from __future__ import annotations

import os
import re

NO_DEVICE = ("", "none", "void", "nodevfiles", "-1")
_COUNTED = re.compile(r"(?:gpu:)?(?:[A-Za-z][\w.-]*:)?(\d+)(?:\(.*\))?")  # 8, a100:4, gpu:a100:4, 8(x2), 4(S:0-1)
_RANGE = re.compile(r"(\d+)-(\d+)")
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_BYTES = {"K": 2**10, "": 2**20, "M": 2**20, "G": 2**30, "T": 2**40}  # without a unit: megabytes


def gpus(devices: str) -> int:
    """Number of GPUs: SLURM_GPUS_ON_NODE, or else how many the variable `devices` lists (0,1,4-6 or names)."""
    counted = _value("SLURM_GPUS_ON_NODE")
    if counted:
        return sum(_number(part, "SLURM_GPUS_ON_NODE") for part in re.split(r",(?![^(]*\))", counted))
    listed = _value(devices)
    if listed.lower() in NO_DEVICE:
        return 0
    return sum(_length(part.strip()) for part in listed.split(",") if part.strip())


def cpus() -> int:
    """SLURM_CPUS_ON_NODE, or else the number of CPUs that this process may use."""
    text = _value("SLURM_CPUS_ON_NODE")
    return _number(text.split(",")[0], "SLURM_CPUS_ON_NODE") if text else len(os.sched_getaffinity(0))


def memory(gpus: int) -> int | None:
    """Bytes on this node; None if Slurm does not limit memory. gpus: for SLURM_MEM_PER_GPU."""
    return (
        _bytes("SLURM_MEM_PER_NODE")
        or _bytes("SLURM_MEM_PER_CPU") * cpus()
        or _bytes("SLURM_MEM_PER_GPU") * gpus
        or None
    )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _number(text: str, name: str) -> int:
    if not (match := _COUNTED.fullmatch(text.strip())):
        raise ValueError(f"{name}={os.environ[name]!r} is not a number that can be read; set it to one")
    return int(match[1])


def _length(part: str) -> int:
    """Number of devices in one entry of a list: a range counts as its length, an index or a name as one."""
    if match := _RANGE.fullmatch(part):
        return int(match[2]) - int(match[1]) + 1
    return 1


def _bytes(name: str) -> int:
    text = _value(name)
    if not text:
        return 0
    if not (match := _MEMORY.fullmatch(text)):
        raise ValueError(f"{name}={text!r} is not an amount of memory that can be read (65536, 64G); set it to one")
    return int(match[1]) * _BYTES[match[2].upper()]
