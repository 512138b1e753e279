"""Sources of a set's rows: named files, folders to search for them, or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sspo_verl.tools.data import hub
from sspo_verl.tools.data.read import read
from sspo_verl.tools.data.record import COLUMNS, Record, record
from sspo_verl.tools.data.sets import EVALUATION, MATH, SUFFIXES, PublishedSet, is_file_of


@dataclass
class Loaded:
    """A loaded set. origin: the file, or the id on the hub. passed_over: files of the same set that were not read."""

    published: PublishedSet
    origin: str
    records: list[Record]
    passed_over: list[Path] = field(default_factory=list)


def from_hub(published: PublishedSet) -> Loaded:
    return Loaded(published, published.hub.id, [record(raw, published) for raw in hub.load(published)])


def from_file(published: PublishedSet, path: Path) -> Loaded:
    return Loaded(published, str(path), [record(raw, published) for raw in read(path, COLUMNS)])


def evaluation_files(sources: Iterable[str], out: Path) -> dict[str, list[Path]]:
    """The files of each evaluation set, in the order of the sources and, within a folder, of their names.

    A source is a folder, a file named like its set, or NAME=FILE. out: a folder inside a source that is skipped, so
    that a second call does not read what the first one wrote. Raises FileNotFoundError for anything else.
    """
    found: dict[str, list[Path]] = {}
    for source in sources:
        name, equals, file = source.partition("=")
        if equals and name in EVALUATION:
            found.setdefault(name, []).append(_existing(Path(file)))
            continue
        path = _existing(Path(source))
        inside = _files(path, out)
        here = {name: [p for p in inside if is_file_of(p, each)] for name, each in EVALUATION.items()}
        if not any(here.values()):
            raise FileNotFoundError(
                f"{path} {'has no' if path.is_dir() else 'is not named like a'} file of an evaluation set. "
                f"Name one as SET=FILE; the sets are {', '.join(EVALUATION)}."
            )
        for name, paths in here.items():
            found.setdefault(name, []).extend(paths)
    return {name: paths for name, paths in found.items() if paths}


def holds_evaluation(source: str, out: Path) -> bool:
    """True if a source of training rows is a folder that also has evaluation sets."""
    path = Path(source)
    return path.is_dir() and any(is_file_of(p, each) for p in _files(path, out) for each in EVALUATION.values())


def load_evaluation(sources: Sequence[str], out: Path, wanted: Iterable[str] = EVALUATION) -> list[Loaded]:
    """The wanted sets: without a source all of them, from the hub; else those that the sources contain."""
    if not sources:
        return [from_hub(EVALUATION[name]) for name in wanted]
    files = evaluation_files(sources, out)
    loaded = []
    for name in (name for name in wanted if name in files):
        first, *others = files[name]
        one = from_file(EVALUATION[name], first)
        one.passed_over = others
        loaded.append(one)
    return loaded


def math_file(source: str, out: Path) -> Path:
    """The training file, given directly or as its folder. Raises FileNotFoundError if there is none, or several."""
    path = _existing(Path(source))
    if not path.is_dir():
        return path
    inside = _files(path, out)
    found = [p for p in inside if is_file_of(p, MATH)]
    found = found or [p for p in inside if p.parent == path and p.name.split(".")[0] == "train"]
    if len(found) != 1:
        listed = ": " + ", ".join(map(str, found)) if found else ""
        raise FileNotFoundError(
            f"{path} has {len(found) or 'no'} files that can be MATH's train split{listed}. Name the file."
        )
    return found[0]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there.")
    return path


def _files(path: Path, out: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    if path.resolve() in out.resolve().parents:
        found = (p for p in found if out.resolve() not in p.resolve().parents)
    return sorted(found)
