"""Checks the checkpoint that a verl run is about to resume from, before Ray starts.

verl loads a separate file into each rank, and its name includes the number of ranks (model_world_size_2_rank_0.pt).
With another number of ranks, the workers fail with a traceback about a missing file, so that is refused here. Nothing
on disk is changed in that case, and no older checkpoint is used instead.
"""

from __future__ import annotations

from pathlib import Path

from sspo_verl.plugin.checkpoints import KINDS, STEP, Checkpoint, Say, contents_of, look, repair, resumable, surplus

RANKS = "trainer.n_gpus_per_node x trainer.nnodes"


def check_resume(config, say: Say) -> None:
    """Check the checkpoint that a run would resume from. With trainer.resume_mode=auto, `repair` it; with resume_path,
    raise ValueError, naming the file, if it is not complete. In both cases the number of ranks must match."""
    trainer = config.trainer
    contents = contents_of(config.actor_rollout_ref.actor.checkpoint)
    if trainer.resume_mode == "auto":
        folder, keep = folder_of(config), trainer.max_actor_ckpt_to_keep
        if best := resumable(folder, contents):
            _refuse_other_ranks(config, best)
        repair(folder, contents, say)
        if more := surplus(folder, keep, contents):
            say(
                f"NOTE: {folder} has {len(more)} checkpoint(s) more than trainer.max_actor_ckpt_to_keep="
                f"{keep}, which verl counts anew at each start. Not needed to resume: "
                f"{', '.join(each.path.name for each in reversed(more))}"
            )
    elif trainer.resume_mode == "resume_path":
        checkpoint = _named(trainer.resume_from_path, contents)
        if checkpoint.fault:
            raise ValueError(
                f"trainer.resume_from_path={trainer.resume_from_path} cannot be resumed from: {checkpoint.fault}. "
                "Name a complete checkpoint, or leave the choice to trainer.resume_mode=auto."
            )
        _refuse_other_ranks(config, checkpoint)
    if trainer.resume_mode != "resume_path" and trainer.resume_from_path:
        say(
            f"WARNING: trainer.resume_from_path={trainer.resume_from_path} has no effect with trainer.resume_mode="
            f"{trainer.resume_mode}: set trainer.resume_mode=resume_path."
        )


def folder_of(config) -> Path:
    """trainer.default_local_dir. Raises ValueError if it is not the path of a folder, or of a new one."""
    path = config.trainer.default_local_dir
    if not isinstance(path, str) or not path:
        raise ValueError(f"trainer.default_local_dir must be a folder's path, got {path!r}.")
    if Path(path).exists() and not Path(path).is_dir():
        raise ValueError(f"trainer.default_local_dir={path} is not a folder. Name a folder, or a new one.")
    return Path(path)


def _named(path, contents: list[str]) -> Checkpoint:
    """The checkpoint of trainer.resume_from_path. Raises ValueError if that is no name that verl can read a step in."""
    if not isinstance(path, str) or not STEP.fullmatch(path.rpartition("/")[2]):
        raise ValueError(
            f"trainer.resume_from_path={path}: with trainer.resume_mode=resume_path, name a checkpoint's folder, "
            ".../global_step_N, without a / at its end."
        )
    return look(Path(path), contents) if Path(path).is_dir() else Checkpoint(Path(path), f"{path} is not there")


def check_ranks(config) -> None:
    """Raise ValueError, naming the fixes, if the checkpoint that the run would resume from automatically
    (trainer.resume_mode=auto) was saved by another number of ranks than the run has. For callers that end a run at its
    last step without starting verl: such a run is not refused."""
    if config.trainer.resume_mode != "auto":
        return
    best = resumable(folder_of(config), contents_of(config.actor_rollout_ref.actor.checkpoint))
    total = config.trainer.total_training_steps
    if best is not None and (total is None or best.step < total):
        _refuse_other_ranks(config, best)


def _refuse_other_ranks(config, checkpoint: Checkpoint) -> None:
    per_node, nodes = config.trainer.n_gpus_per_node, config.trainer.nnodes
    contents = contents_of(config.actor_rollout_ref.actor.checkpoint)
    loads_files_of_ranks = any(kind in KINDS for kind in contents)
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
