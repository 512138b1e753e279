"""Checks that verl and vLLM find the plugin: in the driver, in a Ray worker, in vLLM's processes.

verl logs only at DEBUG that a plugin failed to load, and trains without it; so the cause is reported here.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sspo_verl.tools.doctor.check import FAILED, OK, SKIPPED, WARNING, Check
from sspo_verl.tools.doctor.processes import PACKAGES, Notes, tell
from sspo_verl.tools.doctor.versions import VLLM_BUILDS, version_of
from sspo_verl.tools.runs.verl_log import RAY_NODE_ADVICE, RAY_NODE_FAILED

OWN = "sspo_verl"
HOME = (PACKAGES / OWN).resolve()
# {group: {name: what it has to point at}}
ENTRY_POINTS = {
    "verl.plugins": {"sspo_verl": "sspo_verl.plugin.load"},
    "vllm.general_plugins": {"sspo_verl_cpu": "sspo_verl.plugin.cpu.for_vllm:register"},
}
SWITCH = "VERL_USE_EXTERNAL_PLUGINS"
REINSTALL = (
    "Install this package again into this environment: pip install '.[math,tools]' in its checkout"
    " (or bash scripts/env.sh)."
)


def check_entry_points(driver: Notes) -> list[Check]:
    name = "entry points"
    found = driver.value("installations")
    if found is None:
        return [Check(name, FAILED, driver.why_not("installations"), REINSTALL)]
    missing, strangers = [], []
    for group, expected in ENTRY_POINTS.items():
        there = {point["name"]: point for point in found["points"] if point["group"] == group}
        for entry, value in expected.items():
            if entry not in there:
                missing.append(f"{group} has no {entry}")
            elif there[entry]["value"] != value:
                strangers.append(f"{group}: {entry} is {there[entry]['value']} of {there[entry]['of']}, not {value}")
    if missing or strangers:
        fix = REINSTALL
        if strangers:
            fix = f"Uninstall the package that claims the name (it is named here), then: {REINSTALL}"
        return [Check(name, FAILED, "; ".join(missing + strangers), fix)]
    others = [point["name"] for point in found["points"] if point["group"] == "verl.plugins" and point["name"] != OWN]
    text = "verl.plugins and vllm.general_plugins name this package"
    return [Check(name, OK, text + f"; other plugins of verl: {', '.join(others)}" * bool(others))]


def check_installation(driver: Notes) -> list[Check]:
    """Check that there is one installation, and that it is the one of this `sspo doctor`."""
    name = "installation"
    package = driver.value("package")
    if package is None:
        return [Check(name, FAILED, f"a fresh Python does not find it: {driver.why_not('package')}", REINSTALL)]
    if Path(package) != HOME and _digest(Path(package)) != _digest(HOME):
        found = f"two that differ: a Python started here imports {package}, but this doctor belongs to {HOME}"
        fix = (
            "Install again from the checkout that you mean (pip install '.[math,tools]', or bash scripts/env.sh), or"
            f" start training in another directory and without PYTHONPATH, or remove one: pip uninstall {OWN}."
        )
        return [Check(name, FAILED, found, fix)]
    records = (driver.value("installations") or {}).get("records", [])
    if len(records) > 1:
        fix = f"Keep one: pip uninstall {OWN} until it says that there is none, remove the rest by hand, install again."
        return [Check(name, FAILED, f"{len(records)} on the path: {', '.join(records)}", fix)]
    same = "" if Path(package) == HOME else f"; {package}, which comes first here, is identical"
    return [Check(name, OK, f"{OWN} {version_of(OWN)} in {HOME}{same}")]


def check_switch() -> list[Check]:
    """Check the variable as verl reads it: "auto" for all, "none", or a list of entry points; empty means none."""
    setting = os.environ.get(SWITCH)
    if setting is None:
        return [Check(SWITCH, OK, "not set: verl loads every plugin")]
    if _lets_in(setting):
        return [Check(SWITCH, OK, f"{setting!r} lets {OWN} in")]
    fix = f"Unset {SWITCH}, or name {OWN} in it (a list with commas)."
    return [Check(SWITCH, FAILED, f"{setting!r} keeps verl from loading {OWN}", fix)]


def _lets_in(setting: str) -> bool:
    policy = setting.strip().lower()
    return policy == "auto" or (policy != "none" and OWN in [name.strip() for name in policy.split(",")])


def check_driver(notes: Notes) -> list[Check]:
    checks = [check_registered("plugin in the driver", notes)]
    verl = notes.value("verl")
    if verl and (recorded := version_of("verl")) and recorded != verl["version"]:
        found = f"a fresh Python takes verl {verl['version']} from {Path(verl['file']).parent}; installed is {recorded}"
        fix = "Start training elsewhere, unset PYTHONPATH, or install that verl (pip install -e) and no other."
        checks.append(Check("verl that is imported", WARNING, found, fix))
    return checks


def node_failed(notes: Notes) -> bool:
    """Whether Ray's node did not start within Ray's time limits."""
    return notes.value("ray") is None and RAY_NODE_FAILED in notes.why_not("ray")


def check_ray(notes: Notes | None) -> list[Check]:
    name = "plugin in a Ray worker"
    if notes is None:
        return [Check(name, SKIPPED, "left out (--no-ray)")]
    if notes.value("ray") is None:
        if node_failed(notes):
            fix = RAY_NODE_ADVICE
        else:
            fix = (
                "Ray itself does not start here. Is there free space in the temporary directory and in /dev/shm, and "
                "does `ray start --head` work? (`ray stop` ends it again.)"
            )
        return [Check(name, FAILED, f"no local Ray: {notes.why_not('ray')}", fix)]
    if "worker" in notes.lines or "package" not in notes.lines:
        fix = "Find out why the worker died: too little memory is the most common cause."
        return [Check(name, FAILED, f"no worker answered: {notes.why_not('worker')}", fix)]
    return [check_registered(name, notes)]


def check_registered(name: str, notes: Notes) -> Check:
    """Check that the loss, the estimator and the wrapped ppo_loss are registered, and are ours."""
    verl = notes.value("verl")
    if verl is None:
        fix = "verl does not import. Fix what the message names; the versions above may say why."
        return Check(name, FAILED, f"import verl: {notes.why_not('verl')}", fix)
    if failure := next((f for f in verl["failures"] if f["plugin"] == OWN), None):
        fix = (
            "verl reports nothing and goes on training without SSPO. Fix what the message names; "
            f"python -c 'import {OWN}.plugin.register' shows all of it."
        )
        return Check(name, FAILED, f"the plugin fails to load: {tell(failure)}", fix)
    found = {}
    for step in ("registered", "wrapped"):
        value = notes.value(step)
        if value is None:
            fix = "The message says what does not fit; see the versions above."
            return Check(name, FAILED, f"verl's modules do not import: {notes.why_not(step)}", fix)
        found |= value
    wrong = {what: where for what, where in found.items() if where is None or not _inside(where, notes)}
    if not wrong:
        return Check(name, OK, f"verl {verl['version']} has our {', '.join(found)}")
    not_ours = "; ".join(f"{what}: {where or 'not there'}" for what, where in wrong.items())
    setting = os.environ.get(SWITCH)
    if setting is not None and not _lets_in(setting):
        return Check(name, FAILED, f"verl has no SSPO ({not_ours})", f"{SWITCH} keeps it out, see above.")
    fix = "verl has not loaded this plugin: see the entry points and the installation above."
    return Check(name, FAILED, f"verl does not have our SSPO ({not_ours})", fix)


def check_seams(notes: Notes) -> list[Check]:
    """Try each hook into verl separately; this also finds failures that a run would only hit later."""
    name = "seams of verl"
    found = notes.value("seams")
    if found is None:
        fix = "verl or this package does not import: see the plugin in the driver."
        return [Check(name, FAILED, f"could not be tried: {notes.why_not('seams')}", fix)]
    if broken := {seam: error for seam, error in found.items() if error}:
        text = "; ".join(f"{seam}: {error}" for seam, error in broken.items())
        fix = "Install a verl that this package supports (see verl above); docs/plugin.md explains each seam."
        return [Check(name, FAILED, f"{len(broken)} of {len(found)} do not fit: {text}", fix)]
    modules = dict.fromkeys(seam.split(",")[0] for seam in found)
    return [Check(name, OK, f"all {len(found)} fit: {', '.join(modules)}")]


def check_vllm(notes: Notes) -> list[Check]:
    name = "vLLM"
    version = notes.value("vllm")
    if version is None and not any(map(version_of, VLLM_BUILDS)):
        return [Check(name, SKIPPED, "not installed")]  # the version check says whether that is wrong
    if version is None:
        fix = "vLLM does not import. Its build has to fit torch's: see the versions above."
        return [Check(name, FAILED, notes.why_not("vllm"), fix)]
    plugins = notes.value("general plugins")
    if plugins is None:
        return [Check(name, FAILED, notes.why_not("general plugins"), REINSTALL)]
    if not plugins["needed"]:
        return [Check(name, OK, f"{version} imports")]
    if plugins["linear"] is None or not _inside(plugins["linear"], notes):
        failures = "; ".join(tell(failure) for failure in plugins["failures"])
        fix = "Without it no weights reach vLLM on a CPU. Unset VLLM_PLUGINS, or name sspo_verl_cpu in it."
        if failures:
            fix = f"Without it no weights reach vLLM on a CPU. Fix what the message names. {REINSTALL}"
        found = f"{version} imports, but our plugin for CPUs is not in it"
        return [Check(name, FAILED, found + (f": {failures}" if failures else ""), fix)]
    return [Check(name, OK, f"{version} imports, and loads our plugin for CPUs")]


def _inside(file: str, notes: Notes) -> bool:
    """Whether the code is in the package that the probe imports; `check_installation` checks whether that is ours."""
    package = notes.value("package")
    return package is not None and Path(file).resolve().is_relative_to(package)


def _digest(package: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*")):
        if file.suffix in (".py", ".yaml"):
            digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
