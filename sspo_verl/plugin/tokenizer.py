"""Loads a model's tokenizer from its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in a folder. Raises ValueError, naming the folder, if that fails."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its file formats raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{folder} has no tokenizer that transformers can load ({reason}). Name a model's folder: one with "
            "tokenizer.json, or with the vocabulary files of its kind."
        ) from error


def tokenizer_of(model: Any) -> Any | None:
    """The tokenizer of actor_rollout_ref.model, if it is in a local folder and transformers can load it; else None:
    verl loads it, or reports why not."""
    path = model.get("tokenizer_path") or model.get("path")
    folder = Path(str(path)).expanduser()
    if not path or not folder.is_dir():
        return None
    try:
        return load_tokenizer(folder)
    except ValueError:
        return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Restrict tokenizers to this thread, so that a process that forks later is not warned about threads."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
