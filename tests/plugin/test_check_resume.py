"""What a run resumes from, looked at before Ray starts: complete, and of the run's number of ranks."""

from pathlib import Path

import pytest
from fake_checkpoints import cut, make
from omegaconf import OmegaConf

from sspo_verl.plugin import checkpoints
from sspo_verl.plugin.check_resume import check_resume
from sspo_verl.plugin.checkpoints import KINDS, POINTER

MODEL = "actor/model_world_size_1_rank_0.pt"


def config(folder: Path, mode: str = "auto", contents=tuple(KINDS), **trainer):
    actor = {"checkpoint": {"load_contents": list(contents)}}
    settings = {
        "default_local_dir": str(folder),
        "resume_from_path": None,
        "max_actor_ckpt_to_keep": 2,
        "n_gpus_per_node": 1,
        "nnodes": 1,
    }
    run = {"trainer": {"resume_mode": mode, **settings, **trainer}, "actor_rollout_ref": {"actor": actor}}
    return OmegaConf.create(run)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Complete checkpoints of steps 2, 4, 10 and 12, of one rank."""
    for step in (2, 4, 10, 12):
        make(tmp_path, step)
    return tmp_path


def test_a_run_of_ours_is_checked_before_it_starts(folder):
    said: list[str] = []
    cut(folder / "global_step_12" / MODEL)
    check_resume(config(folder, "disable"), said.append)
    assert not said
    path = str(folder / "global_step_12")
    with pytest.raises(ValueError, match=rf"resume_from_path={path} cannot be .* {path}/{MODEL} \(.* is cut off"):
        check_resume(config(folder, "resume_path", resume_from_path=path), said.append)
    with pytest.raises(ValueError, match="global_step_99 is not there"):
        check_resume(config(folder, "resume_path", resume_from_path=f"{folder}/global_step_99"), said.append)
    check_resume(config(folder, "auto"), said.append)
    assert "resumes from step 10" in said[0]
    assert "has 1 checkpoint(s) more" in said[1]
    assert "global_step_2" in said[1]
    assert checkpoints.pointer(folder) == 10


@pytest.mark.parametrize("keep", [0, -1])
def test_all_are_kept_where_verl_keeps_all(folder, keep):
    said: list[str] = []
    check_resume(config(folder, max_actor_ckpt_to_keep=keep), said.append)
    assert not said


def refused(folder: Path, **settings) -> str:
    """The error, once it is known that nothing was said or changed on disk."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="was saved by") as error:
        check_resume(config(folder, **settings), pytest.fail)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return str(error.value)


def test_a_checkpoint_of_more_or_fewer_ranks_is_refused_with_the_way_out(tmp_path):
    path = make(tmp_path, 4, ranks=2)
    said = refused(tmp_path)
    assert f"{path} was saved by 2 rank(s), and this run has 1 " in said
    assert "set trainer.n_gpus_per_node=2." in said
    assert f"--backend fsdp --local_dir {path / 'actor'} --target_dir MODEL" in said
    path = make(tmp_path, 6, ranks=1)
    said = refused(tmp_path, n_gpus_per_node=2)
    assert f"{path} was saved by 1 rank(s), and this run has 2 " in said
    assert "set trainer.n_gpus_per_node=1." in said
    assert "this run has 4 (trainer.n_gpus_per_node x trainer.nnodes = 2 x 2)" in (
        said := refused(tmp_path, n_gpus_per_node=2, nnodes=2)
    )
    assert "set trainer.n_gpus_per_node x trainer.nnodes to 1." in said
    (path / "actor" / "huggingface" / "model.safetensors").touch()
    said = refused(tmp_path, n_gpus_per_node=2)
    assert f"set actor_rollout_ref.model.path={path / 'actor' / 'huggingface'} and another folder" in said


def test_no_older_checkpoint_is_taken_in_its_place(folder):
    make(folder, 14, ranks=2)
    assert "global_step_14 was saved by 2" in refused(folder)
    (folder / POINTER).write_text("")  # what `repair` would correct
    assert "global_step_14 was saved by 2" in refused(folder)
    path = str(folder / "global_step_14")
    assert f"{path} was saved by 2" in refused(folder, mode="resume_path", resume_from_path=path)


def test_the_same_number_of_ranks_resumes_however_it_is_made_up(tmp_path):
    make(tmp_path, 4, ranks=4)
    for per_node, nodes in ((4, 1), (2, 2), (1, 4)):
        check_resume(config(tmp_path, n_gpus_per_node=per_node, nnodes=nodes), pytest.fail)
    make(tmp_path, 4, ranks=1, exist_ok=True)  # of another run, beside them
    for ranks in (1, 4):
        check_resume(config(tmp_path, n_gpus_per_node=ranks), pytest.fail)
    assert "saved by 4" in refused(tmp_path, n_gpus_per_node=2)


def test_a_run_that_loads_no_file_of_ranks_is_let_through(tmp_path):
    make(tmp_path, 4, ranks=2)
    check_resume(config(tmp_path, contents=()), pytest.fail)
    check_resume(config(tmp_path, "disable"), pytest.fail)
    (tmp_path / "global_step_6" / "actor" / "dist_ckpt").mkdir(parents=True)  # Megatron's loads with another number
    (tmp_path / POINTER).write_text("6")
    check_resume(config(tmp_path), lambda line: None)


@pytest.mark.parametrize("path", [None, "", 5, "somewhere", "global_step_2/", "global_step_x"])
def test_a_path_that_verl_reads_no_step_in_is_refused(folder, path):
    path = f"{folder}/{path}" if isinstance(path, str) and path else path
    with pytest.raises(ValueError, match=r"trainer\.resume_from_path=.*name a checkpoint's folder"):
        check_resume(config(folder, "resume_path", resume_from_path=path), pytest.fail)


@pytest.mark.parametrize("mode", ["auto", "disable"])
def test_a_path_that_verl_does_not_read_is_said(folder, mode):
    said: list[str] = []
    check_resume(config(folder, mode, resume_from_path=f"{folder}/global_step_4"), said.append)
    assert f"has no effect with trainer.resume_mode={mode}" in said[-1]


@pytest.mark.parametrize("path", [None, "", 5])
def test_a_folder_without_a_path_is_refused(folder, path):
    with pytest.raises(ValueError, match=r"trainer\.default_local_dir must be a folder's path, got"):
        check_resume(config(folder, default_local_dir=path), pytest.fail)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"default_local_dir=.*file is not a folder"):
        check_resume(config(tmp_path / "file"), pytest.fail)


def test_an_incomplete_set_of_other_ranks_does_not_hide_a_complete_one(tmp_path):
    path = make(tmp_path, 4, ranks=1)
    (path / "actor" / "model_world_size_2_rank_0.pt").write_bytes(b"cut")
    check_resume(config(tmp_path), pytest.fail)
    assert "saved by 1 rank" in refused(tmp_path, n_gpus_per_node=2)


def test_a_complete_set_of_other_ranks_does_not_stand_in_for_a_damaged_one(tmp_path):
    path = make(tmp_path, 4, ranks=1)
    make(tmp_path, 4, ranks=2, exist_ok=True)
    cut(path / MODEL)
    assert "saved by 2 rank" in refused(tmp_path)
    check_resume(config(tmp_path, n_gpus_per_node=2), pytest.fail)
