"""The starting point that all algorithms share: model and data, made once and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from sspo_verl.quickstart import arithmetic, warm_up
from sspo_verl.quickstart import tokenizer as byte_tokenizer
from sspo_verl.quickstart.progress import DATA, EXPECTED_WARM_UP, MODEL, Status

EVALUATION_SEED = 0
STEPS_TO_TIME = 10  # the first steps are slow, and no measure
SOURCES = ("arithmetic.py", "tokenizer.py", "warm_up.py")


def fingerprint(settings: warm_up.Settings) -> str:
    """Of everything of ours that model and data depend on: the settings, and the code itself."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def read_if_current(folder: Path, settings: warm_up.Settings) -> dict | None:
    """The record of what lies in `folder`; None if it has to be made (again)."""
    record = folder / "made.json"
    if not record.exists():
        return None
    made = json.loads(record.read_text())
    return made if made["fingerprint"] == fingerprint(settings) else None


def make(
    folder: Path,
    settings: warm_up.Settings,
    show: Callable[[Status], None],
    seconds_after: float,
) -> dict:
    """Make model and data in `folder`, in the place of what was there; returns the record.

    seconds_after: how long everything after this stage is expected to take, for the time left. A call that is
    interrupted leaves `folder` as it was.
    """
    import torch

    show(Status(MODEL, "loading torch and transformers"))
    making = folder.with_name(folder.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    tokenizer = byte_tokenizer.build()
    began = time.monotonic()

    def on_step(done: int, loss: float) -> None:
        measured = (time.monotonic() - began) / done if done >= STEPS_TO_TIME else 0.0
        left = (measured or EXPECTED_WARM_UP / settings.steps) * (settings.steps - done)
        status = Status(
            MODEL,
            "learning from worked solutions with mistakes in them",
            done,
            settings.steps,
            left + seconds_after,
            (f"loss {loss:.2f}",),
        )
        show(status)

    model = warm_up.train(tokenizer, settings, on_step)
    seconds = time.monotonic() - began
    warm_up.save(model, tokenizer, making / "model")

    show(Status(MODEL, "measuring the start", seconds_left=seconds_after))
    problems = arithmetic.splits()["test"]
    greedy = warm_up.accuracy(model, tokenizer, problems)
    torch.manual_seed(EVALUATION_SEED)
    sampled = warm_up.accuracy(model, tokenizer, problems, sample=True)

    show(Status(DATA, "writing problems", seconds_left=seconds_after))
    rows = arithmetic.write_parquet(making / "data")
    record = {
        "fingerprint": fingerprint(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "greedy_accuracy": greedy,
        "sampled_accuracy": sampled,
        "seconds": seconds,
        "rows": rows,
    }
    (making / "made.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    return record
