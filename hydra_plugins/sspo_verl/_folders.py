"""Inspects an application's config folders by reading their files: nothing is imported or composed."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.config_store import ConfigStore

GROUP = "algorithm"
COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)
LONGEST = 1 << 20  # characters of a file that are read
# A config that contains this builds on verl's, or was printed from them (AlgoConfig).
NAMES_VERL = re.compile(r"\bverl[./]trainer[./]config\b")
DEFAULTS = re.compile(r"^defaults[ \t]*:.*(?:\n(?:[ \t#\-\[\]{},].*)?)*", re.MULTILINE)
# `- algorithm: x`, `- optional /algorithm: x`, `[{algorithm: x}]`; not `- override algorithm: x`, `algorithm@a.b: x`.
FILLS = r"(?:^[ \t]*-|[\[{,])\s*\{?\s*[\"']?(?:optional\s+)?[\"']?%salgorithm[\"']?\s*:"
FILLS_AT_THE_TOP = re.compile(FILLS % "/?", re.MULTILINE)
FILLS_IN_A_GROUP = re.compile(FILLS % "/", re.MULTILINE)


def verl_config_dir() -> Path | None:
    """The folder of verl's trainer configs, found without importing verl; None if verl is not installed."""
    return _package_folder("verl.trainer.config")


def folder_of(path: str) -> Path | None:
    """The folder of a search path element such as pkg://a.b, file:///a/b, a/b; None if it is not a folder."""
    scheme, _, rest = path.rpartition("://")
    if scheme == "pkg":
        return _package_folder(rest.replace("/", "."))
    return Path(rest).resolve() if scheme in ("", "file") and Path(rest).is_dir() else None


def _package_folder(name: str) -> Path | None:
    first, *inner = name.strip(".").split(".")
    try:
        spec = importlib.util.find_spec(first)  # for a top-level name, imports nothing
    except ValueError:  # an empty name, or a module without a spec
        return None
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location, *inner)
        if folder.is_dir():
            return folder.resolve()
    return None


def builds_on_verl(folder: Path) -> bool:
    """True if the folder has configs for verl: all its configs refer to verl's, or one does and it has verl's groups.

    In a folder of mixed content without a group `algorithm`, another application may use that word for a value.
    """
    named = [NAMES_VERL.search(COMMENT.sub("", text)) is not None for text in map(_text, _configs(folder))]
    return any(named) and (all(named) or (folder / GROUP).is_dir())


def own_algorithms(folder: Path) -> bool:
    """True if the folder has configs in a group `algorithm` that are not in verl's own folder."""
    verls = verl_config_dir()
    names_of_verl = {file.name for file in _configs(verls / GROUP)} if verls else set()
    return any(file.name not in names_of_verl for file in _configs(folder / GROUP))


def fills_slot(folder: Path) -> bool:
    """True if a config in the folder has `algorithm` in its defaults list; with the slot it would be there twice."""
    if any(_has_default(file, FILLS_AT_THE_TOP) for file in _configs(folder)):
        return True
    groups = folder.glob("*/**/") if own_algorithms(folder) else ()
    return any(_has_default(file, FILLS_IN_A_GROUP) for group in groups for file in _configs(group))


def stored_algorithms() -> set[str]:
    """Configs in the group `algorithm` of Hydra's ConfigStore, as `algorithm/x.yaml`."""
    stored = ConfigStore.instance().repo.get(GROUP)
    return {f"{GROUP}/{name}" for name in stored if name.endswith(".yaml")} if isinstance(stored, dict) else set()


def _has_default(file: Path, entry: re.Pattern[str]) -> bool:
    return any(entry.search(block) for block in DEFAULTS.findall(_text(file)))


def _configs(folder: Path) -> Iterator[Path]:
    for pattern in ("*.yaml", "*.yml"):
        yield from folder.glob(pattern)


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return lines.read(LONGEST)
    except OSError:  # a folder of that name, or no read permission
        return ""
