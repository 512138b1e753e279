"""The starting model and data shared by all algorithms, written to a folder once and reused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from sspo_verl.tools.quickstart import model
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.tasks import arithmetic

_FROM = (model.__file__, byte_tokenizer.__file__, arithmetic.__file__, model.WEIGHTS)


def fingerprint() -> str:
    """Hash of everything in this package that model and data depend on: the weights and the code."""
    digest = hashlib.sha256()
    for file in _FROM:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def read_if_current(folder: Path) -> dict | None:
    """The record of what is in `folder`; None if it has to be (re)made."""
    file = folder / "made.json"
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
    except ValueError:  # damaged
        return None
    current = isinstance(record, dict) and record.get("fingerprint") == fingerprint()
    return record if current else None


def make(folder: Path) -> dict:
    """Write model and data to `folder`, replacing what was there; return the record.

    An interrupted call leaves `folder` unchanged.
    """
    making = folder.with_name(folder.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    tokenizer = byte_tokenizer.build()
    start = model.starting_model(tokenizer)
    model.save(start, tokenizer, making / "model")
    rows = arithmetic.write_parquet(making / "data")
    measured = model.record()
    record = {
        "fingerprint": fingerprint(),
        "parameters": sum(p.numel() for p in start.parameters()),
        "greedy_accuracy": measured["greedy_accuracy"],
        "sampled_accuracy": measured["sampled_accuracy"],
        "rows": rows,
    }
    (making / "made.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    return record
