"""A model's tokenizer from its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder. Raises ValueError, naming the folder, if there is none that can be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its formats do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{folder} holds no tokenizer that transformers can load ({reason}). Name a model's folder: one with "
            "tokenizer.json, or with the vocabulary files of its kind."
        ) from error


def tokenizer_of(model: Any) -> Any | None:
    """The tokenizer of actor_rollout_ref.model, where it is in a folder of this machine and transformers can load it;
    else None: verl loads it, or says why not."""
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
    """Tokenizers work in this thread alone, so that a process which forks later is not warned of threads."""
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
