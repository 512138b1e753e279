"""Runs all checks: the slow ones in parallel in fresh processes, the quick ones meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sspo_verl.tools.doctor import composition, machine, plugin, segmenter, tokenizer, versions
from sspo_verl.tools.doctor.check import Check, guarded
from sspo_verl.tools.doctor.processes import Notes, Probe

POLL_SECONDS = 0.1
DRIVER, RAY, VLLM, SEAMS = "the driver", "a Ray worker", "vLLM", "the seams of verl"
TOKENIZER, SEGMENTER = "the tokenizer", "the segmenter"


def examine(model: Path | None, spec: str | None, with_ray: bool, show: Callable[[list[str]], None]) -> list[Check]:
    """Run all checks. spec: a segmenter to test as well. show: called repeatedly with the checks still running."""
    probes: dict[str, Probe] = {}
    try:
        # Slowest first.
        if with_ray:
            probes[RAY] = Probe("probe.py", "ray")
        probes[DRIVER] = Probe("probe.py", "driver")
        probes[VLLM] = Probe("probe.py", "vllm")
        probes[SEAMS] = Probe("probe.py", "seams")
        if model is not None:
            probes[TOKENIZER] = Probe("tokenizer_probe.py", str(model))
        if spec is not None:
            probes[SEGMENTER] = Probe("segmenter_probe.py", spec, *([str(model)] if model is not None else []))
        quick = guarded("versions", versions.check_versions)
        wait(probes, show)
        if with_ray and plugin.node_failed(probes[RAY].notes()):
            # Its node has 15 s to start, beside the other probes: once more, with the machine to itself.
            probes[RAY].end()
            probes[RAY] = Probe("probe.py", "ray")
            wait(probes, show)
        notes = {name: probe.notes() for name, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.ask_to_end()
        for probe in probes.values():
            probe.end()
    checks = quick + judge(notes)
    if spec is not None:
        checks += guarded(segmenter.NAME, lambda: segmenter.check_segmenter(spec, notes[SEGMENTER]))
    return checks


def wait(probes: dict[str, Probe], show: Callable[[list[str]], None]) -> None:
    while running := [name for name, probe in probes.items() if probe.running()]:
        show(running)
        time.sleep(POLL_SECONDS)


def judge(notes: dict[str, Notes]) -> list[Check]:
    driver = notes[DRIVER]
    looks: dict[str, Callable[[], list[Check]]] = {
        machine.NAME: lambda: machine.check_machine(driver),
        "installation": lambda: plugin.check_installation(driver),
        "entry points": lambda: plugin.check_entry_points(driver),
        plugin.SWITCH: plugin.check_switch,
        "plugin in the driver": lambda: plugin.check_driver(driver),
        "seams of verl": lambda: plugin.check_seams(notes[SEAMS]),
        "plugin in a Ray worker": lambda: plugin.check_ray(notes.get(RAY)),
        "vLLM": lambda: plugin.check_vllm(notes[VLLM]),
        composition.NAME: lambda: composition.check_composition(driver),
        tokenizer.LOADS: lambda: tokenizer.check_tokenizer(notes.get(TOKENIZER)),
    }
    return [check for name, look in looks.items() for check in guarded(name, look)]
