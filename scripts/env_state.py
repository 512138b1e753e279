"""What an environment should hold and what it does hold. Reads only; env.py acts on it. Standard library only."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import zlib
from pathlib import Path

SOURCES = ("sspo_verl", "hydra_plugins", "setup.py", "pyproject.toml")  # what the installed package is made of


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(file: Path) -> dict[str, str]:
    """The `name==version` lines of a pin file, names in canonical form."""
    pins: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_]+)", line)
        if match is None or canonical(match[1]) in pins:
            raise ValueError(f"{file}, line {number}: {line!r} is no pin of the form name==version, or a second one.")
        pins[canonical(match[1])] = match[2]
    return pins


def hash_sources(root: Path) -> str:
    """Changes when the files change that the installed package is made of."""
    digest = hashlib.sha256()
    for source in SOURCES:
        top = root / source
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def dist_infos(site: Path, name: str) -> list[Path]:
    """Where pip keeps its record of a package: more than one place if an installation was interrupted."""
    return [path for path in site.glob("*.dist-info") if canonical(path.name.partition("-")[0]) == name]


def broken(site: Path, pins: dict[str, str]) -> dict[str, str]:
    """The pins that are not installed as they should be, each with what is wrong. An empty pin is any version."""
    records = {path: read_record(path) for path in site.glob("*.dist-info")}
    places: dict[str, list[Path]] = {}
    sizes: dict[str, set[str]] = {}  # of several, where packages hold the same file
    for place, record in records.items():
        places.setdefault(canonical(place.name.partition("-")[0]), []).append(place)
        for path, size in record.items():
            sizes.setdefault(path, set()).add(size)
    wrong: dict[str, str] = {}
    for name, pinned in pins.items():
        found = places.get(name, [])
        versions = [place.name.removesuffix(".dist-info").partition("-")[2] for place in found]
        if not found:
            wrong[name] = "is not installed"
        elif len(found) > 1 or (pinned and versions != [pinned]):
            wrong[name] = f"is {' and '.join(sorted(versions))}, the pin is {pinned}"
        elif not records[found[0]]:
            wrong[name] = "has lost the list of its files"
        elif damage := first_damage(site, records[found[0]], sizes):
            wrong[name] = damage
    return wrong


def read_record(dist_info: Path) -> dict[str, str]:
    """The files of an installed package, with their sizes."""
    try:
        with open(dist_info / "RECORD", newline="") as record:
            return {row[0]: row[2] for row in csv.reader(record) if row and not row[0].endswith(".pyc")}
    except FileNotFoundError:
        return {}


def first_damage(site: Path, record: dict[str, str], sizes: dict[str, set[str]]) -> str | None:
    for path, size in record.items():
        try:
            status = os.stat(os.path.join(site, path))
        except OSError:
            return f"lacks {path}"
        # Scripts (they lie outside of site-packages) are rewritten when the checkout moves.
        if size and str(status.st_size) not in sizes[path] and not path.startswith(".."):
            return f"has another {path} than was installed"
    return None


def fingerprint(*folders: Path) -> str:
    """Changes when a file is added or deleted below, or a package is installed again.

    Reads folders and not files, so that tens of thousands of files take a tenth of a second.
    """
    digest = hashlib.sha256()
    for top in folders:
        below = [str(top)]
        while below:
            folder = below.pop()
            count = names = 0
            try:
                entries = os.scandir(folder)
            except OSError:
                digest.update(b"unreadable\0")
                continue
            subfolders = []
            with entries:
                for entry in entries:
                    if entry.name == "__pycache__" or entry.name.endswith(".pyc"):
                        continue  # Python writes these as it runs
                    count += 1
                    names += zlib.crc32(entry.name.encode())  # a sum, as a folder has no order
                    if entry.is_dir(follow_symlinks=False):
                        subfolders.append(entry.path)
                    elif entry.name == "RECORD":
                        status = entry.stat()
                        names += status.st_mtime_ns + status.st_size
            digest.update(f"{folder[len(str(top)) :]}\0{count}\0{names}\0".encode())
            below.extend(sorted(subfolders))
    return digest.hexdigest()
