"""The starting model and the data that all algorithms share, put into a folder once and kept."""

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
    """Hash of everything of ours that model and data depend on: the weights, and the code itself."""
    digest = hashlib.sha256()
    for file in _FROM:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def read_if_current(folder: Path) -> dict | None:
    """The record of what is in `folder`; None if it has to be made (again)."""
    file = folder / "made.json"
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
    except ValueError:  # damaged
        return None
    return record if record["fingerprint"] == fingerprint() else None


def make(folder: Path) -> dict:
    """Put model and data in `folder`, in the place of what was there; returns the record.

    A call that is interrupted leaves `folder` as it was.
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
