"""Runs verl's own model merger in a separate process, into a folder that later calls reuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sspo_verl.tools.evaluate.models import Model
from sspo_verl.tools.runs.environment import QUIET_ENVIRONMENT

LAST_LINES = 15


class Failed(Exception):
    """A stage ended with an error: the merger, or vLLM."""


def weights(model: Model, cache: Path) -> Path:
    """The folder in Hugging Face's layout with the model's weights; shards are merged into `cache`."""
    if model.shards is None:
        return model.hf
    target = cache / model.fingerprint
    if target.is_dir():
        return target
    part = cache / f"{model.fingerprint}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    log = cache / f"{model.fingerprint}.log"
    command = [
        *(sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"),
        *("--local_dir", str(model.shards), "--target_dir", str(part)),
    ]
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            env={**os.environ, **QUIET_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0 or not any(part.glob("*.safetensors")):
        raise Failed(f"verl's model merger failed on {model.shards} (exit code {done.returncode}).\n{tail(log)}")
    # The merger writes weights, config and tokenizer; also keep a chat template in a separate file.
    for file in model.hf.iterdir():
        if file.is_file() and not (part / file.name).exists():
            shutil.copy(file, part)
    part.rename(target)
    return target


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return "\n".join([*lines, f"(the complete log: {log})"])
