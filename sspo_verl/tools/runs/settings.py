"""The settings of a run, flat: {"a.b": value}; and reading them from a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

from sspo_verl.tools import files

Settings = dict[str, object]
FILE = "settings.json"


def flatten(config: object, prefix: str = "") -> Settings:
    """{"a.b": value} of nested dictionaries; lists and empty dictionaries are values."""
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    flat: Settings = {}
    for key, value in config.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def write(settings: Settings, folder: Path) -> None:
    """Write FOLDER/settings.json, as the quickstart does."""
    files.write(folder / FILE, json.dumps(settings, indent=1, default=str) + "\n")


def read(folder: Path) -> tuple[Settings, list[str]]:
    """The settings of the run in `folder` (empty if there are none), and what could not be read, in words.

    settings.json is the quickstart's; .hydra is in Hydra's output folder, or in hydra/ below it.
    """
    problems = []
    for file in (folder / FILE, *(folder / top / ".hydra" / "config.yaml" for top in (".", "hydra"))):
        if not file.is_file():
            continue
        try:
            return load(file), problems
        except Exception as error:  # from any parser; the curves can be shown without it
            problems.append(f"{file} is unreadable, so the run is named after its folder ({type(error).__name__})")
    return {}, problems


def load(file: Path) -> Settings:
    """Settings in one file, JSON or YAML; interpolations are not resolved. Raises what the parser raises, and
    ValueError, naming the file, if it holds anything else."""
    if file.suffix == ".json":
        config = files.read_json(file, "remove it")
    else:
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no settings by name, but {config!r:.40}: remove it.")
    return flatten(config)
