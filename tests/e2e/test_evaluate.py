"""`sspo eval` with vLLM for real: greedy and sampled, killed half way and resumed, from verl's shards."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import starting_model
from evaluate_parts import make_checkpoint

from sspo_verl.tools.quickstart import start

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 240
SOME = 64  # responses after which the first run is killed
SAMPLED = ("--k", "8", "--temperature", "1", "--sets", "test")


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Path:
    """A model that writes worked solutions, not all of them right."""
    folder = tmp_path_factory.mktemp("start") / "start"
    start.make(folder)
    return folder


def process(started: Path, out: Path, *options: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "from sspo_verl.tools.evaluate.command import command; command()"]
    data = ("--data", started / "data", "--max-tokens", "64", "--out", out, "--json")
    return subprocess.Popen(
        [*command, *data, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=started
    )


def evaluate(started: Path, out: Path, *options: str | Path) -> dict:
    done = process(started, out, *options)
    said, errors = done.communicate(timeout=SECONDS)
    assert done.returncode == 0, errors
    return json.loads(said)


def rows(out: Path, name: str) -> dict[tuple[int, int], dict]:
    lines = map(json.loads, (out / name / "responses.jsonl").read_text().splitlines())
    return {(line["index"], line["sample"]): line for line in lines}


def test_greedy_says_what_the_quickstart_measures_and_a_checkpoint_is_merged(started, tmp_path):
    """transformers' own generation is the reference; verl's merger rounds the checkpoint to bfloat16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sspo_verl.tools.tasks.arithmetic import splits

    model = started / "model"
    checkpoint = make_checkpoint(model, tmp_path / "global_step_3")
    doc = evaluate(started, tmp_path / "out", "--model", f"start={model}", "--model", checkpoint)
    plain, merged = doc["models"]
    reference = starting_model.accuracy(
        AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), splits()["test"]
    )
    accuracy = plain["sets"]["test"]["accuracy"]["value"]
    assert reference > 0.01, "a model that solves nothing shows nothing"
    assert accuracy == pytest.approx(reference, abs=2 / 256)
    ours, theirs = rows(tmp_path / "out", "start"), rows(tmp_path / "out", "global_step_3")
    same = sum(ours[key]["output"] == theirs[key]["output"] for key in ours)
    assert same > 0.8 * len(ours) == 0.8 * len(theirs) == 0.8 * 256
    assert merged["settings"]["model"] != plain["settings"]["model"]
    assert list((tmp_path / "out" / "merged").glob("*/model.safetensors"))


def test_killed_half_way_and_resumed_is_the_same_as_never_killed(started, tmp_path):
    model = ("--model", f"start={started / 'model'}")
    complete = evaluate(started, tmp_path / "complete", *model, *SAMPLED)

    first = process(started, tmp_path / "killed", *model, *SAMPLED)
    file = tmp_path / "killed" / "start" / "responses.jsonl"
    deadline = time.monotonic() + SECONDS
    while not file.exists() or file.read_bytes().count(b"\n") < SOME:
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline, "no responses came"
        time.sleep(0.005)
    below = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive, "the vLLM of a killed evaluation continued"
    there = file.read_bytes()
    kept = there.count(b"\n")
    assert SOME <= kept < 8 * 256, "it was not killed half way"
    with file.open("ab") as torn:
        torn.write(b'{"set": "test", "index": 3, "sam')

    resumed = evaluate(started, tmp_path / "killed", *model, *SAMPLED)
    assert resumed["models"][0]["reused"] == kept
    assert file.read_bytes().startswith(there[: there.rfind(b"\n") + 1])
    ours, theirs = rows(tmp_path / "killed", "start"), rows(tmp_path / "complete", "start")
    assert len(file.read_bytes().splitlines()) == len(ours) == len(theirs) == 8 * 256
    assert len({row["output"] for key, row in theirs.items() if key[0] == 0}) > 1, "samples of a problem differ"
    different = [key for key in ours if ours[key] != theirs[key]]
    assert not different
    assert resumed["models"][0]["sets"] == complete["models"][0]["sets"]
    assert 0 < complete["models"][0]["sets"]["test"]["accuracy"]["value"] < 1


def test_a_model_that_vllm_cannot_load_is_an_error_with_its_reason(started, tmp_path):
    broken = shutil.copytree(started / "model", tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: os.path.getsize(weights) // 2])
    done = process(started, tmp_path / "out", "--model", broken)
    said, errors = done.communicate(timeout=SECONDS)
    assert (done.returncode, said) == (1, "")
    assert "vLLM ended with exit code 1 after 0 of 256 responses" in errors
    assert "afetensor" in errors
