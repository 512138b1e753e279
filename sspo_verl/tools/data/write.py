"""Writes files atomically, and refuses to overwrite existing ones by mistake."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raise FileExistsError, naming all existing files, before anything is done."""
    there = [] if force else [str(path) for path in paths if path.exists()]
    if there:
        raise FileExistsError(
            f"{', '.join(there)} {'exists' if len(there) == 1 else 'exist'} already; --force replaces."
        )


def write_all(folder: Path, names: Iterable[str], write: Callable[[Path], object], force: bool) -> list[Path]:
    """Write files with `write` into a folder next to the destination, and then move all of them there."""
    targets = [folder / name for name in names]
    refuse_existing(targets, force)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as making:
        write(Path(making))
        for target in targets:
            os.replace(Path(making) / target.name, target)
    return targets
