"""Checkpoints as verl's FSDP leaves them, without tensors."""

import zipfile
from pathlib import Path

from sspo_verl.plugin.checkpoints import KINDS, POINTER


def make(checkpoints: Path, step: int, ranks: int = 1, point: bool = True, exist_ok: bool = False) -> Path:
    """CHECKPOINTS/global_step_N, complete; and the pointer to it. exist_ok: beside the files of other ranks."""
    path = checkpoints / f"global_step_{step}"
    (path / "actor" / "huggingface").mkdir(parents=True, exist_ok=exist_ok)
    shards = [f"actor/{kind}_world_size_{ranks}_rank_{rank}.pt" for kind in KINDS.values() for rank in range(ranks)]
    for name in (*shards, "data.pt"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("archive/data.pkl", b"0" * 500)
    if point:
        (checkpoints / POINTER).write_text(str(step))
    return path


def cut(file: Path) -> None:
    """Leave the first half, as a full disk or a killed process does."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
