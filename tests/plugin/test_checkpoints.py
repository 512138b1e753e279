"""Damaged checkpoints: found before Ray starts, set aside, and the newest complete one is resumed from."""

from pathlib import Path

import pytest
import torch
from fake_checkpoints import cut, make

from sspo_verl.plugin import checkpoints
from sspo_verl.plugin.checkpoints import KINDS, POINTER

MODEL = "actor/model_world_size_1_rank_0.pt"
OPTIMIZER = "actor/optim_world_size_1_rank_0.pt"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Complete checkpoints of steps 2, 4, 10 and 12."""
    for step in (2, 4, 10, 12):
        make(tmp_path, step)
    return tmp_path


def repair(folder: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    best = checkpoints.repair(folder, KINDS, said.append)
    assert checkpoints.resumable(folder) == best
    if best is not None:
        assert (folder / POINTER).read_text() == str(best.step)
    return best and best.step, said


def test_nothing_is_done_to_a_run_that_verl_resumes_rightly(folder, tmp_path):
    assert repair(folder) == (12, [])
    (folder / POINTER).write_text("10\n")  # set back on purpose
    assert checkpoints.repair(folder, KINDS, print).step == 10
    assert sorted(path.name for path in folder.glob("global_step_*")) == sorted(
        f"global_step_{step}" for step in (2, 4, 10, 12)
    )
    assert repair(tmp_path / "new") == (None, [])


def test_a_damaged_checkpoint_is_set_aside_and_named(folder):
    for damage, name in ((cut, MODEL), (Path.unlink, OPTIMIZER), (lambda file: file.write_bytes(b""), "data.pt")):
        step = checkpoints.pointer(folder)
        path = folder / f"global_step_{step}"
        damage(path / name)
        resumed, (line,) = repair(folder)
        assert f"The checkpoint of step {step} is damaged: {path / name}" in line
        assert f"It was moved to {folder}/damaged_global_step_{step}. Training resumes from step {resumed}" in line
        assert not path.exists()
        assert (folder / f"damaged_global_step_{step}").is_dir()
    assert resumed == 2
    cut(make(folder, 4) / MODEL)  # a second time: under another name
    assert "damaged_global_step_4-2" in repair(folder)[1][0]


def test_a_pointer_without_a_step_or_a_folder_is_corrected(folder):
    for text, said in (("", "holds no step"), ("14", "names step 14, and"), (None, "is not there")):
        (folder / POINTER).unlink()
        if text is not None:
            (folder / POINTER).write_text(text)
        step, (line,) = repair(folder)
        assert step == 12
        assert said in line


def test_without_a_complete_checkpoint_training_begins_anew_and_says_so(tmp_path):
    cut(make(tmp_path, 2) / MODEL)
    step, (line,) = repair(tmp_path)
    assert step is None
    assert "training begins at step 0" in line
    assert not (tmp_path / POINTER).exists()
    assert (tmp_path / "damaged_global_step_2").is_dir()
    assert repair(tmp_path) == (None, [])


def test_every_rank_must_have_its_files_and_no_more_than_is_loaded(tmp_path):
    path = make(tmp_path, 2, ranks=3)
    assert checkpoints.look(path).fault is None
    (path / "actor" / "optim_world_size_3_rank_2.pt").unlink()
    assert "optim_world_size_3_rank_2.pt is not there" in checkpoints.look(path).fault
    assert checkpoints.look(path, ["model", "extra"]).fault is None
    (path / "critic").mkdir()
    assert "critic/model_world_size_3_rank_0.pt is not there" in checkpoints.look(path, ["model"]).fault
    assert "actor is not there" in checkpoints.look(tmp_path / "global_step_9").fault


def test_a_file_of_torch_is_complete_at_every_length_but_its_own(tmp_path):
    path = make(tmp_path, 2)
    torch.save({"weight": torch.zeros(1000)}, path / MODEL)
    data = (path / MODEL).read_bytes()
    assert checkpoints.look(path).fault is None
    for length in (0, 1, len(data) // 2, len(data) - 1):
        (path / MODEL).write_bytes(data[:length])
        assert f"{MODEL} ({length:,} bytes) is cut off" in checkpoints.look(path).fault


def test_what_cannot_be_checked_or_is_missing_is_said(folder):
    (folder / "global_step_12" / "data.pt").unlink()
    step, (line,) = repair(folder)
    assert (step, "has no data.pt" in line) == (12, True)
    (folder / "global_step_14" / "actor" / "dist_ckpt").mkdir(parents=True)  # Megatron's
    (folder / POINTER).write_text("14")
    step, (line,) = repair(folder)
    assert (step, "was not checked" in line) == (14, True)


@pytest.mark.parametrize("made", ["actor/model", "actor/dist_ckpt", "step-14"])  # Megatron's two, torchtitan's
def test_another_layout_is_left_where_it_is(tmp_path, made):
    path = tmp_path / "global_step_14"
    (path / made).mkdir(parents=True)
    assert repair(tmp_path) == (None, []), "the first save may have been cut off: verl starts anew"
    for text in ("14", "", "15"):
        (tmp_path / POINTER).write_text(text)
        step, said = repair(tmp_path)
        assert (step, path.is_dir(), checkpoints.pointer(tmp_path)) == (14, True, 14)
        assert "was not checked" in said[-1]
    assert checkpoints.look(path) == checkpoints.Checkpoint(path, checked=False)


def test_checkpoints_of_earlier_starts_are_removed_but_for_the_newest_complete_ones(folder):
    (make(folder, 6, point=False) / MODEL).unlink()  # as verl leaves the shell of one that it removed
    (make(folder, 11, point=False) / MODEL).unlink()
    (make(folder, 14, point=False) / MODEL).unlink()  # being written when the run ended; verl writes it again
    said: list[str] = []
    checkpoints.prune(folder, None, KINDS, said.append)
    assert not said
    checkpoints.prune(folder, 2, KINDS, said.append)
    assert "step 2, 4, 6, 11 (trainer.max_actor_ckpt_to_keep=2)" in said[0]
    assert [each.step for each in checkpoints.found(folder)] == [14, 12, 10]
    checkpoints.prune(folder, 2, KINDS, said.append)
    assert len(said) == 1


@pytest.mark.parametrize("keep", [0, -1])
def test_all_are_kept_where_verl_keeps_all(folder, keep):
    said: list[str] = []
    checkpoints.prune(folder, keep, KINDS, said.append)
    assert not said
    assert checkpoints.surplus(folder, keep) == []
    assert len(checkpoints.found(folder)) == 4


@pytest.mark.parametrize("stray", ["actor/.ipynb_checkpoints", "lost+found", "actor/notes"])
def test_a_folder_of_somebody_elses_does_not_hide_a_damaged_checkpoint(folder, stray):
    (folder / "global_step_12" / stray).mkdir()
    (folder / "global_step_12" / MODEL).unlink()
    step, said = repair(folder)
    assert step == 10
    assert f"{MODEL} is not there" in said[0]


def test_only_names_that_verl_writes_are_checkpoints(folder):
    for name in ("global_step_012", "global_step_\N{ARABIC-INDIC DIGIT FOUR}", "global_step_-1"):
        (folder / name).mkdir()
    assert [each.step for each in checkpoints.found(folder)] == [12, 10, 4, 2]


def test_a_pointer_that_cannot_be_read_is_named(folder):
    (folder / POINTER).unlink()
    (folder / POINTER).mkdir()
    with pytest.raises(ValueError, match=f"{POINTER} cannot be read .* Remove it to resume"):
        repair(folder)
