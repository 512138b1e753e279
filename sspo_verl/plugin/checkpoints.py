"""verl's checkpoints on disk: which are complete, and which one a run resumes from.

verl writes global_step_N/ (actor/, perhaps critic/, data.pt) and then N into latest_checkpointed_iteration.txt, the
pointer. It resumes from the step in the pointer, checks nothing else, and trains from step 0 if the pointer names a
folder that does not exist. So a pointer that is empty, or names a damaged checkpoint, is corrected here before Ray
starts.

Complete means: every file that a resume loads exists, for every rank, and is readable as the zip archive that
torch.save writes (its directory is at the end of the file, so a truncated file is detected). That takes milliseconds
and loads no tensor. Layouts other than FSDP's (Megatron's, torchtitan's) are not checked, and so not resumed from
unless verl has written a pointer.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

POINTER = "latest_checkpointed_iteration.txt"
DAMAGED = "damaged_"  # prefix of the name of a checkpoint that was moved out of the way
# {item of save_contents: prefix of FSDP's files}
KINDS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}
PARTS = {"actor", "critic"}  # in global_step_N
FSDP_FOLDERS = {"huggingface", "lora_adapter"}  # in a part, next to the files
STEP = re.compile(r"global_step_(0|[1-9][0-9]*)")  # as verl writes it
_SHARD = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A folder global_step_N. fault: description that names the file, or None. checked: False for a layout other than
    FSDP's. ranks: the world sizes of which it has all files: one, unless several runs wrote to the folder."""

    path: Path
    fault: str | None = None
    checked: bool = True
    ranks: frozenset[int] = frozenset()

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("global_step_"))

    @property
    def has_data_state(self) -> bool:
        return (self.path / "data.pt").is_file()


def contents_of(checkpoint, name: str = "load_contents") -> list[str]:
    """What verl loads from a checkpoint or saves to it; null is verl's default. checkpoint: `actor.checkpoint`."""
    value = checkpoint.get(name)
    return list(KINDS if value is None else value)


def found(folder: Path, contents: Iterable[str] = KINDS) -> list[Checkpoint]:
    """Checkpoints in a run's folder, newest first. contents: what a resume loads (checkpoint.load_contents)."""
    paths = [path for path in folder.glob("global_step_*") if STEP.fullmatch(path.name)]
    return sorted((look(path, contents) for path in paths), key=lambda each: -each.step)


def look(path: Path, contents: Iterable[str] = KINDS) -> Checkpoint:
    """Check one checkpoint."""
    if _is_other_layout(path):
        return Checkpoint(path, checked=False)
    if not (path / "actor").is_dir():
        return Checkpoint(path, f"{path / 'actor'} is not there")
    if (path / "data.pt").exists() and (fault := _fault(path / "data.pt")):
        return Checkpoint(path, fault)
    parts = [path / part for part in sorted(PARTS) if (path / part).is_dir()]
    sizes = sorted(_ranks(path / "actor") or {1}, reverse=True)
    faults = {size: _first_fault(parts, contents, size) for size in sizes}
    complete = frozenset(size for size in sizes if faults[size] is None)
    return Checkpoint(path, None if complete else faults[sizes[0]], ranks=complete)


def _is_other_layout(path: Path) -> bool:
    """Whether it contains folders that FSDP does not create: Megatron's are in actor/ (dist_ckpt, or model, optimizer
    and extra), torchtitan's is next to it."""
    if any(_SHARD.fullmatch(file.name) for file in path.glob("actor/*")):
        return False
    beside = {each.name for each in path.glob("*") if each.is_dir()} - PARTS
    inside = {each.name for each in path.glob("actor/*") if each.is_dir()} - FSDP_FOLDERS
    return any(not name.startswith(".") and name != "lost+found" for name in beside | inside)


def _first_fault(parts: list[Path], contents: Iterable[str], ranks: int) -> str | None:
    """The first fault of the files that a resume with so many ranks loads, or None."""
    files = (
        part / f"{KINDS[kind]}_world_size_{ranks}_rank_{rank}.pt"
        for part in parts
        for kind in contents
        if kind in KINDS
        for rank in range(ranks)
    )
    return next(filter(None, map(_fault, files)), None)


def _ranks(part: Path) -> set[int]:
    return {int(match[2]) for file in part.glob("*") if (match := _SHARD.fullmatch(file.name))}


def _fault(file: Path) -> str | None:
    if not file.is_file():
        return f"{file} is not there"
    try:
        with zipfile.ZipFile(file):
            return None
    except (zipfile.BadZipFile, OSError) as error:
        return f"{file} ({file.stat().st_size:,} bytes) is cut off or damaged ({error})"


def pointer(folder: Path) -> int | None:
    """The step in the pointer; None if there is no pointer, or no number in it. Raises ValueError, naming the file, if
    it cannot be read."""
    try:
        return int((folder / POINTER).read_text())
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise ValueError(f"{folder / POINTER} cannot be read ({error.strerror}). Remove it to resume.") from error


def resumable(folder: Path, contents: Iterable[str] = KINDS) -> Checkpoint | None:
    """The checkpoint that `repair` makes a run resume from: the one in the pointer if it is complete (or not in FSDP's
    layout), else the newest complete one."""
    return _to_resume(folder, found(folder, contents))


def _to_resume(folder: Path, checkpoints: list[Checkpoint]) -> Checkpoint | None:
    named, has_pointer = pointer(folder), (folder / POINTER).exists()
    # Without a pointer the first save was interrupted, which is only detected if files are checked.
    sound = [each for each in checkpoints if each.fault is None and (each.checked or has_pointer)]
    return next((each for each in sound if each.step == named), sound[0] if sound else None)


def repair(folder: Path, contents: Iterable[str], say: Say) -> Checkpoint | None:
    """Make a run resume from a complete checkpoint, and return it; None if there is none. Changes are logged.

    If the pointer names a damaged checkpoint, that is renamed to damaged_global_step_N. The pointer is rewritten to
    `resumable` (atomically), or removed if there is none.
    """
    named, best = pointer(folder), resumable(folder, contents)
    if best is None and not (folder / POINTER).exists():
        return None
    if best is None or best.step != named:
        say(f"{_why_not(folder, named, contents)} {_instead(folder, best)}")
        _set_aside(folder, named)
        _point_to(folder, best)
    if best is not None and not best.checked:
        say(f"{best.path} is not in FSDP's layout, so whether it is complete was not checked.")
    elif best is not None and not best.has_data_state:
        say(f"{best.path} has no data.pt, the state of the data loader: the data starts from its beginning again.")
    return best


def _why_not(folder: Path, named: int | None, contents: Iterable[str]) -> str:
    file = folder / POINTER
    if named is None:
        return f"{file} {'holds no step' if file.exists() else 'is not there'}."
    path = folder / f"global_step_{named}"
    if not path.is_dir():
        return f"{file} names step {named}, and {path} is not there."
    return f"The checkpoint of step {named} is damaged: {look(path, contents).fault}. It was moved to {_aside(path)}."


def _instead(folder: Path, best: Checkpoint | None) -> str:
    if best is None:
        return f"No complete checkpoint is in {folder}: training begins at step 0."
    return f"Training resumes from step {best.step}, the newest complete checkpoint."


def _aside(path: Path) -> Path:
    """An unused name for a damaged checkpoint."""
    names = [path.with_name(f"{DAMAGED}{path.name}{suffix}") for suffix in ("", *(f"-{n}" for n in range(2, 100)))]
    return next(name for name in names if not name.exists())


def _set_aside(folder: Path, named: int | None) -> None:
    path = folder / f"global_step_{named}"
    if named is not None and path.is_dir():
        path.rename(_aside(path))


def _point_to(folder: Path, best: Checkpoint | None) -> None:
    if best is None:
        (folder / POINTER).unlink(missing_ok=True)
        return
    part = folder / f"{POINTER}.part"
    part.write_text(str(best.step))
    with open(part) as file:
        os.fsync(file.fileno())
    part.replace(folder / POINTER)


def surplus(folder: Path, keep: int | None, contents: Iterable[str] = KINDS) -> list[Checkpoint]:
    """Checkpoints that can be deleted before a start: up to `resumable`, all but the `keep` newest complete ones.

    keep: trainer.max_actor_ckpt_to_keep, which verl counts only within a process; None, and 0 or less, keep all.
    """
    checkpoints = found(folder, contents) if keep is not None and keep > 0 else []
    best = _to_resume(folder, checkpoints)
    if best is None:
        return []
    older = [each for each in checkpoints if each.step <= best.step]
    kept = [each for each in older if each.fault is None][:keep]
    return [each for each in older if each.step < kept[-1].step or each.fault is not None]


def prune(folder: Path, keep: int | None, contents: Iterable[str], say: Say) -> None:
    """Delete the `surplus` checkpoints that earlier starts of the run left, and log it."""
    gone = surplus(folder, keep, contents)
    for each in gone:
        shutil.rmtree(each.path, ignore_errors=True)
    if gone:
        steps = ", ".join(str(each.step) for each in reversed(gone))
        say(
            f"Checkpoints of earlier starts were removed from {folder}: step {steps} "
            f"(trainer.max_actor_ckpt_to_keep={keep})."
        )
