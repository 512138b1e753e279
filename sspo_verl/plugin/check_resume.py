"""Checks the checkpoint that a verl run is about to resume from, before Ray starts.

verl loads a separate file into each rank, and its name includes the number of ranks (model_world_size_2_rank_0.pt).
With another number of ranks, the workers fail with a traceback about a missing file, so that is refused here. Nothing
on disk is changed in that case, and no older checkpoint is used instead.
"""

from __future__ import annotations

from pathlib import Path

from sspo_verl.plugin.check_numbers import check_integer_or_null, is_integer
from sspo_verl.plugin.checkpoints import KINDS, Checkpoint, Say, look, repair, resumable, surplus

RANKS = "trainer.n_gpus_per_node x trainer.nnodes"


def check_resume(config, say: Say) -> None:
    """Check the checkpoint that a run would resume from. With trainer.resume_mode=auto, `repair` it; with resume_path,
    raise ValueError, naming the file, if it is not complete. In both cases the number of ranks must match."""
    trainer = config.trainer
    contents = _contents(config)
    if trainer.resume_mode == "auto":
        folder, keep = Path(trainer.default_local_dir), trainer.max_actor_ckpt_to_keep
        check_integer_or_null("trainer.max_actor_ckpt_to_keep", keep)
        if best := resumable(folder, contents):
            _refuse_other_ranks(config, best)
        repair(folder, contents, say)
        if more := surplus(folder, keep, contents):
            say(
                f"NOTE: {folder} has {len(more)} checkpoint(s) more than trainer.max_actor_ckpt_to_keep="
                f"{keep}, which verl counts anew at each start. Not needed to resume: "
                f"{', '.join(each.path.name for each in reversed(more))}"
            )
    elif trainer.resume_mode == "resume_path" and trainer.resume_from_path:
        path = Path(trainer.resume_from_path)
        checkpoint = look(path, contents) if path.is_dir() else Checkpoint(path, f"{path} is not there")
        if checkpoint.fault:
            raise ValueError(
                f"trainer.resume_from_path={trainer.resume_from_path} cannot be resumed from: {checkpoint.fault}."
            )
        _refuse_other_ranks(config, checkpoint)


def check_ranks(config, folder: Path) -> None:
    """Raise ValueError, naming the fixes, if the checkpoint in `folder` that the run would resume from automatically
    (trainer.resume_mode=auto) was saved by another number of ranks than the run has. For callers that end a run at its
    last step without starting verl: such a run is not refused."""
    if config.trainer.resume_mode != "auto":
        return
    best, total = resumable(folder, _contents(config)), config.trainer.total_training_steps
    if best is not None and not (is_integer(total) and best.step >= total):
        _refuse_other_ranks(config, best)


def _contents(config) -> list[str]:
    return list(config.actor_rollout_ref.actor.checkpoint.load_contents)


def _refuse_other_ranks(config, checkpoint: Checkpoint) -> None:
    per_node, nodes = config.trainer.n_gpus_per_node, config.trainer.nnodes
    loads_files_of_ranks = any(kind in KINDS for kind in _contents(config))
    if not checkpoint.ranks or per_node * nodes in checkpoint.ranks or not loads_files_of_ranks:
        return
    saved = max(checkpoint.ranks)
    key = f"trainer.n_gpus_per_node={saved // nodes}" if saved % nodes == 0 else f"{RANKS} to {saved}"
    raise ValueError(
        f"{checkpoint.path} was saved by {saved} rank(s), and this run has {per_node * nodes} ({RANKS} = {per_node} x "
        f"{nodes}). verl loads one file per rank, so only a run with {saved} can resume from it: set "
        f"{key}. To continue from its weights alone, with a new optimizer and from step 0, {_start_from(checkpoint)} "
        "and another folder as trainer.default_local_dir."
    )


def _start_from(checkpoint: Checkpoint) -> str:
    actor = checkpoint.path / "actor"
    if any((actor / "huggingface").glob("*.safetensors")):
        return f"set actor_rollout_ref.model.path={actor / 'huggingface'}"
    return (
        f"convert them (python -m verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir MODEL) and "
        "set actor_rollout_ref.model.path=MODEL"
    )
