"""The kinds of --model: a folder in Hugging Face's layout, or verl's checkpoint in any of its forms."""

import json
import shutil

import pytest
from evaluate_parts import make_checkpoint, make_model
from safetensors.torch import load_file, save_file

from sspo_verl.tools.evaluate import merge
from sspo_verl.tools.evaluate.models import resolve, resolve_all


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "tiny")


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    return make_checkpoint(tiny_model, tmp_path / "run" / "checkpoints" / "global_step_5")


def test_a_folder_in_hugging_faces_layout(model):
    found = resolve(str(model))
    assert (found.name, found.hf, found.shards, found.length) == ("tiny", model, None, 128)
    assert resolve(f"mine={model}").name == "mine"


def test_names_that_say_nothing_are_passed_over(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "start" / "model")
    assert resolve(str(folder)).name == "start"


@pytest.mark.parametrize("form", ["", "actor", "actor/huggingface", ".."])
def test_every_form_of_a_checkpoint_without_merged_weights(checkpoint, form):
    found = resolve(str(checkpoint / form))
    assert found.shards is not None
    assert found.shards.resolve() == checkpoint / "actor"
    assert found.hf.resolve() == checkpoint / "actor" / "huggingface"
    assert found.name == ("run" if form == ".." else "global_step_5")


def test_merged_weights_in_the_checkpoint_are_taken(checkpoint, tiny_model):
    shutil.copy(tiny_model / "model.safetensors", checkpoint / "actor" / "huggingface")
    found = resolve(str(checkpoint))
    assert (found.hf, found.shards) == (checkpoint / "actor" / "huggingface", None)
    (checkpoint / "actor" / "model_world_size_1_rank_0.pt").unlink()  # checkpoint.save_contents=[hf_model]
    for form in ("", "actor", "actor/huggingface", ".."):
        assert resolve(str(checkpoint / form)).fingerprint == found.fingerprint


def test_a_lora_run_whose_adapters_are_not_merged_is_refused(checkpoint, tiny_model):
    """vLLM cannot load the one form, and verl's merger makes the base model of the other."""
    (checkpoint / "actor" / "lora_train_meta.json").write_text('{"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM"}')
    with pytest.raises(ValueError, match=r"adapters are not merged .*lora_train_meta\.json\)"):
        resolve(str(checkpoint))
    weights = load_file(tiny_model / "model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    folder = checkpoint / "actor" / "huggingface"
    save_file({name: next(iter(weights.values()))}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"adapters are not merged .*{name} in {folder}"):
        resolve(str(checkpoint))
    save_file(weights, folder / "model.safetensors")  # merged ones
    assert resolve(str(checkpoint)).shards is None


def test_of_several_checkpoints_the_last_complete_one(checkpoint, tiny_model):
    parent = checkpoint.parent
    make_checkpoint(tiny_model, parent / "global_step_10")
    shutil.copytree(parent / "global_step_10", parent / "global_step_20")
    (parent / "latest_checkpointed_iteration.txt").write_text("10")
    assert resolve(str(parent)).hf.parts[-3] == "global_step_10"
    (parent / "latest_checkpointed_iteration.txt").unlink()
    assert resolve(str(parent)).hf.parts[-3] == "global_step_20"


def test_the_fingerprint_is_of_the_contents(model, checkpoint, tmp_path):
    first = resolve(str(model)).fingerprint
    assert resolve(str(shutil.copytree(model, tmp_path / "elsewhere"))).fingerprint == first
    (model / "README.md").write_text("words")
    assert resolve(str(model)).fingerprint == first
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja", "generation_config.json"):
        changed = shutil.copytree(model, tmp_path / name)
        content = bytearray((changed / name).read_bytes())
        content[-1] ^= 1
        (changed / name).write_bytes(content)
        if name != "config.json":
            assert resolve(str(changed)).fingerprint != first, name
    shard = checkpoint / "actor" / "model_world_size_1_rank_0.pt"
    before = resolve(str(checkpoint)).fingerprint
    shard.write_bytes(shard.read_bytes() + b"x")
    assert resolve(str(checkpoint)).fingerprint != before


def test_a_damaged_config_is_named(model):
    (model / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged .*: copy the model again"):
        _ = resolve(str(model)).length


def break_nothing(folder):
    return folder / "nowhere"


def break_config(folder):
    (folder / "config.json").unlink()
    return folder


def break_weights(folder):
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (break_nothing, "is not a folder"),
        (break_config, "neither a model"),
        (break_weights, "no weights"),
    ],
)
def test_what_is_no_model(model, breaking, said):
    with pytest.raises(ValueError, match=said):
        resolve(str(breaking(model)))


def test_shards_that_do_not_belong_together(tiny_model, tmp_path):
    two = make_checkpoint(tiny_model, tmp_path / "global_step_1", ranks=2)
    assert resolve(str(two)).shards
    (two / "actor" / "model_world_size_2_rank_0.pt").rename(two / "actor" / "model_world_size_4_rank_0.pt")
    with pytest.raises(ValueError, match="2 and 4 ranks"):
        resolve(str(two))
    (two / "actor" / "model_world_size_4_rank_0.pt").unlink()
    with pytest.raises(ValueError, match=r"lacks the shards of 1 of 2 ranks \(rank 0\)"):
        resolve(str(two))
    (two / "actor" / "model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ValueError, match="has no weights"):
        resolve(str(two))
    shutil.rmtree(two / "actor" / "huggingface")
    with pytest.raises(ValueError, match=r"no huggingface/config\.json"):
        resolve(str(two))


@pytest.mark.parametrize("name", ["a b", "a/b", "..", "", "x" * 101])
def test_names_that_are_no_folders_name(model, name):
    with pytest.raises(ValueError, match="--model"):
        resolve(f"{name}={model}")


def test_two_models_of_one_name(model, tiny_model):
    with pytest.raises(ValueError, match="both called tiny"):
        resolve_all((str(model), str(tiny_model)))
    assert [one.name for one in resolve_all((str(model), f"other={tiny_model}"))] == ["tiny", "other"]


def test_verls_merger_makes_the_weights_once(checkpoint, tiny_model, tmp_path, monkeypatch):
    found = resolve(str(checkpoint))
    cache = tmp_path / "merged"
    folder = merge.weights(found, cache)
    merged, original = load_file(folder / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    assert merged.keys() == original.keys()
    for name, weight in original.items():
        assert merged[name].equal(weight.bfloat16()), name  # verl's merger writes bfloat16
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (folder / name).exists()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2"

    def again(*arguments, **named):
        raise AssertionError("merged twice")

    monkeypatch.setattr(merge.subprocess, "run", again)
    assert merge.weights(found, cache) == folder


def test_a_merger_that_fails_says_so_and_leaves_nothing_that_looks_whole(checkpoint, tmp_path):
    shard = checkpoint / "actor" / "model_world_size_1_rank_0.pt"
    shard.write_bytes(b"no shard")
    found = resolve(str(checkpoint))
    with pytest.raises(merge.Failed, match=r"model merger failed on .*\n(.|\n)*Error"):
        merge.weights(found, tmp_path / "merged")
    assert not (tmp_path / "merged" / found.fingerprint).exists()
