"""`sspo doctor`: on this machine as it is, and with one thing after the other broken on purpose."""

import json
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
import reference
from click.testing import CliRunner
from real_vocabularies import random_text
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sspo_verl.tools.doctor import (
    composition,
    examine,
    machine,
    plugin,
    segmenter,
    segmenter_probe,
    show,
    tokenizer,
    tokenizer_probe,
    versions,
)
from sspo_verl.tools.doctor.check import FAILED, OK, SKIPPED, WARNING, Check, guarded
from sspo_verl.tools.doctor.command import command
from sspo_verl.tools.doctor.cut_text import segment_ends
from sspo_verl.tools.doctor.processes import PACKAGES, Notes, Probe
from sspo_verl.tools.quickstart import tokenizer as byte_level
from sspo_verl.tools.runs.verl_log import RAY_NODE_ADVICE, RAY_NODE_FAILED

DOCTOR = [Path(sys.executable).with_name("sspo"), "doctor"]
MARK = "SSPO_TEST_MARK"


def environment(**more: str) -> dict[str, str]:
    """The tests' own, less what would change verl's mind, and with a mark to know its processes by."""
    kept = {key: value for key, value in os.environ.items() if key not in (plugin.SWITCH, "PYTHONPATH")}
    return kept | {MARK: uuid.uuid4().hex} | more


def doctor(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    env = environment(**env)
    done = subprocess.run([*DOCTOR, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert "Traceback" not in done.stderr, done.stderr
    assert left_over(env[MARK]) == []
    return done


def left_over(mark: str) -> list[str]:
    """The processes that carry this mark: what a run has started and not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            pass
    return found


def by_name(checks: list[dict]) -> dict[str, dict]:
    assert len({check["name"] for check in checks}) == len(checks)
    return {check["name"]: check for check in checks}


def notes(**values) -> Notes:
    return Notes([{"step": step.replace("_", " "), "value": value} for step, value in values.items()], "", "")


# ---- complete runs


@pytest.mark.slow
def test_a_healthy_machine(tmp_path):
    byte_level.build().save_pretrained(tmp_path / "model")
    done = doctor("--json", "--model", str(tmp_path / "model"), cwd=tmp_path)
    found = json.loads(done.stdout)  # one document and nothing else
    checks = by_name(found["checks"])
    assert {check["status"] for check in checks.values()} == {OK}, found
    assert (found["ok"], done.returncode, done.stderr) == (True, 0, "")
    assert set(checks) == {
        *("Python", *versions.PACKAGES, "platform", "installation", "entry points", plugin.SWITCH),
        *("plugin in the driver", "plugin in a Ray worker", "seams of verl", "vLLM", "algorithm=sspo"),
        *(tokenizer.BREAKS, tokenizer.CUTS),
    }
    for name in ("plugin in the driver", "plugin in a Ray worker"):
        assert checks[name]["found"] == "verl 0.9.1 has our policy loss, advantage estimator, ppo_loss"
    assert re.match(r"all \d\d fit: verl.trainer.ppo.core_algos, ", checks["seams of verl"]["found"])
    assert checks[tokenizer.BREAKS]["found"].endswith(
        ": 1 of 259 tokens hold a line break; 1 of these are blank, 0 have text after it"
    )


@pytest.mark.slow
def test_a_plugin_that_fails_to_load_is_found(tmp_path):
    """Broken on purpose; verl itself says so at DEBUG only, and would train on with another loss."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['sspo_verl.plugin.hook'] = None\n")
    done = doctor("--json", cwd=tmp_path, PYTHONPATH=str(folder))
    found = json.loads(done.stdout)
    assert (found["ok"], done.returncode) == (False, 1)
    checks = by_name(found["checks"])
    for name in ("plugin in the driver", "plugin in a Ray worker"):
        assert checks[name]["status"] == FAILED
        assert "the plugin fails to load: ModuleNotFoundError: import of sspo_verl.plugin.hook" in checks[name]["found"]
        assert "register.py:" in checks[name]["found"]
        assert "goes on training without SSPO" in checks[name]["fix"]
    assert checks["algorithm=sspo"]["status"] == FAILED
    assert "`python -c 'import sspo_verl.plugin.register'` shows why" in checks["algorithm=sspo"]["found"]


@pytest.mark.slow
def test_another_verl_a_switch_that_excludes_us_and_a_package_of_our_name(tmp_path):
    """The package is in the working directory, where `python -m verl.trainer.main_ppo` would find it first."""
    fake_package(tmp_path / "fake", "verl", "0.8.0")
    (tmp_path / "sspo_verl").mkdir()
    (tmp_path / "sspo_verl" / "__init__.py").write_text("raise RuntimeError('not the real one')\n")
    done = doctor("--no-ray", cwd=tmp_path, PYTHONPATH=str(tmp_path / "fake"), VERL_USE_EXTERNAL_PLUGINS="other")
    assert done.returncode == 1
    lines = done.stdout.splitlines()

    def after(start: str) -> tuple[str, str]:
        index = next(i for i, line in enumerate(lines) if " ".join(line.split()).startswith(start))
        return lines[index], lines[index + 1]

    line, fix = after("failed verl 0.8.0")
    assert "but sspo_verl 0.1.0 asks for" in line
    assert 'to fix: pip install "verl>=0.9.1,<0.10"' in fix
    line, fix = after("failed installation")
    assert f"a Python started here imports {tmp_path / 'sspo_verl'}, but this doctor belongs to " in line
    assert "pip uninstall sspo_verl" in fix
    line, fix = after("failed VERL_USE_EXTERNAL_PLUGINS 'other'")
    assert "to fix: Unset VERL_USE_EXTERNAL_PLUGINS" in fix
    line, fix = after("failed plugin in the driver")
    assert "policy loss: not there" in line
    assert "VERL_USE_EXTERNAL_PLUGINS keeps it out" in fix
    line, fix = after("warning verl that is imported")
    assert "takes verl 0.9.1" in line
    line, fix = after("failed algorithm=sspo does not compose")
    assert "RuntimeError: not the real one" in line
    assert after("skipped plugin in a Ray worker")
    assert lines[-1].startswith("Not all checks passed: ")


def test_a_model_that_is_not_there_is_bad_usage(tmp_path):
    done = CliRunner().invoke(command, ["--model", str(tmp_path / "nothing")])
    assert done.exit_code == 2
    assert str(tmp_path / "nothing") in "".join(done.stderr.split("\n"))
    assert "--model" in done.stderr


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(tmp_path):
    env = environment()
    process = subprocess.Popen(DOCTOR, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until(lambda: any("raylet" in line for line in left_over(env[MARK])), 120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=900)
    assert process.returncode == 130
    wait_until(lambda: not left_over(env[MARK]), 60)


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


# ---- probes


def test_a_probe_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    stuck = tmp_path / "stuck.py"
    stuck.write_text(
        "import subprocess, sys, time\n"
        'open(sys.argv[1], \'w\').write(\'{"step": "one", "value": 1}\\n{"st\')\n'
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print('going to sleep', flush=True)\n"
        "time.sleep(600)\n"
    )
    probe = Probe(str(stuck), seconds=2)
    wait_until(lambda: not probe.running(), 60)
    found = probe.notes()
    probe.end()
    assert left_over(mark) == []
    assert not probe.folder.exists()
    assert found.value("one") == 1
    assert found.why_not("two").startswith("no answer within 2 seconds")


def test_a_probe_ends_when_the_doctor_is_killed(tmp_path):
    stuck = tmp_path / "stuck.py"
    stuck.write_text("import time; time.sleep(600)\n")
    script = f"import time; from sspo_verl.tools.doctor.processes import Probe; Probe({str(stuck)!r}); time.sleep(600)"
    env = environment()
    process = subprocess.Popen([sys.executable, "-c", script], cwd=PACKAGES, env=env)
    wait_until(lambda: len(left_over(env[MARK])) == 3, 60)
    process.kill()
    process.wait()
    wait_until(lambda: not left_over(env[MARK]), 60)


def test_a_probe_that_dies_tells_its_last_line(tmp_path):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys; print('out of luck', file=sys.stderr, flush=True); os._exit(7)\n")
    probe = Probe(str(dying))
    wait_until(lambda: not probe.running(), 60)
    found = probe.notes()
    probe.end()
    assert found.why_not("one") == "the process ended with exit code 7; its last line: out of luck"


# ---- versions


def fake_package(folder: Path, name: str, version: str, *requires: str, python: str = "") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] * bool(python) + [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_versions_are_held_against_what_the_packages_ask_for(tmp_path, monkeypatch):
    fake_package(tmp_path, "ray", "2.40.0")
    fake_package(tmp_path, "tensordict", "0.9.0")
    fake_package(tmp_path, "torch", "2.12.0+cpu")
    fake_package(tmp_path, "math_verify", "0.8.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = {check.name: check for check in versions.check_versions()}
    assert found["verl"].status == OK
    assert (found["ray"].status, found["tensordict"].status, found["torch"].status) == (FAILED, FAILED, FAILED)
    assert found["ray"].found == "2.40.0, but verl 0.9.1 asks for >=2.41.0"
    assert found["ray"].fix.startswith('pip install "ray>=2.41.0"')
    assert "verl 0.9.1 asks for" in found["tensordict"].found
    assert "asks for ==2.1" in found["torch"].found, "vLLM is built against one torch"
    assert found["math-verify"].status == FAILED
    assert found["math-verify"].found.startswith("0.8.0, but sspo_verl ")


def test_our_own_metadata_is_what_verl_is_held_against(tmp_path, monkeypatch):
    fake_package(tmp_path, "sspo_verl", "9.0", "verl>=1.0,<2", python=">=3.99")
    monkeypatch.syspath_prepend(tmp_path)
    assert versions.check_package("verl").found == "0.9.1, but sspo_verl 9.0 asks for <2,>=1.0"
    python = versions.check_python()
    assert (python.status, "supported: >=3.99" in python.found) == (FAILED, True)


def test_a_vllm_that_verl_does_not_pin_is_a_warning(tmp_path, monkeypatch):
    fake_package(tmp_path, "vllm", "0.23.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = versions.check_package("vllm")
    assert (found.status, found.found) == (WARNING, "0.23.0; verl's own pin is ==0.24.0")


def test_packages_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(versions, "VLLM_BUILDS", ("vllm-of-nowhere",))
    found = versions.check_package("vllm")
    assert (found.status, found.found) == (FAILED, "not installed")
    assert 'pip install "vllm==0.24.0"' in found.fix
    monkeypatch.setattr(versions, "version_of", lambda name: "0.5" if name == "sglang" else None)
    assert versions.check_package("vllm").status == SKIPPED
    assert versions.check_package("math-verify").status == WARNING
    assert "pip install 'sspo_verl[math]'" in versions.check_package("math-verify").fix
    assert versions.check_package("ray").status == FAILED


# ---- the plugin

HOME = str(plugin.HOME)
POINTS = [
    {"group": group, "name": name, "value": value, "of": "sspo_verl"}
    for group, entries in plugin.ENTRY_POINTS.items()
    for name, value in entries.items()
]


def test_entry_points():
    (check,) = plugin.check_entry_points(notes(installations={"points": POINTS}))
    assert check.status == OK
    (check,) = plugin.check_entry_points(notes(installations={"points": POINTS[1:]}))
    assert (check.status, check.found) == (FAILED, "verl.plugins has no sspo_verl")
    stranger = POINTS[0] | {"value": "other.plugin", "of": "other"}
    (check,) = plugin.check_entry_points(notes(installations={"points": [*POINTS, stranger]}))
    assert check.status == FAILED
    assert "sspo_verl is other.plugin of other" in check.found
    (check,) = plugin.check_entry_points(Notes([], "the process ended with exit code 1", ""))
    assert (check.status, check.found) == (FAILED, "the process ended with exit code 1")


def test_installation(tmp_path):
    (check,) = plugin.check_installation(notes(package=HOME, installations={"records": ["0.1.0 in here"]}))
    assert check.status == OK
    (check,) = plugin.check_installation(notes(package=HOME, installations={"records": ["0.1 in a", "0.2 in b"]}))
    assert (check.status, "0.1 in a, 0.2 in b" in check.found) == (FAILED, True)
    copy = tmp_path / "sspo_verl"
    for file in plugin.HOME.rglob("*"):
        if file.suffix in (".py", ".yaml"):
            target = copy / file.relative_to(plugin.HOME)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (check,) = plugin.check_installation(notes(package=str(copy)))
    assert (check.status, str(copy) in check.found) == (OK, True)
    (copy / "loss.py").write_text("# another loss\n")
    (check,) = plugin.check_installation(notes(package=str(copy)))
    assert (check.status, str(copy) in check.found) == (FAILED, True)


@pytest.mark.parametrize(
    ("setting", "status"),
    [(None, OK), ("auto", OK), (" AUTO ", OK), ("a, sspo_verl", OK), ("none", FAILED), ("", FAILED), ("sspo", FAILED)],
)
def test_the_switch_is_read_as_verl_reads_it(monkeypatch, setting, status):
    if setting is None:
        monkeypatch.delenv(plugin.SWITCH, raising=False)
    else:
        monkeypatch.setenv(plugin.SWITCH, setting)
    (check,) = plugin.check_switch()
    assert check.status == status


VERL = {"version": "0.9.1", "file": "verl/__init__.py", "failures": []}
REGISTERED = {"policy loss": f"{HOME}/a.py", "advantage estimator": f"{HOME}/b.py"}
WRAPPED = {"ppo_loss": f"{HOME}/a.py"}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({}, OK, "verl 0.9.1 has our policy loss"),
        ({"registered": REGISTERED | {"policy loss": None}}, FAILED, "policy loss: not there"),
        ({"registered": REGISTERED | {"policy loss": "/other/loss.py"}}, FAILED, "policy loss: /other/loss.py"),
        ({"wrapped": {"ppo_loss": "/verl/losses.py"}}, FAILED, "ppo_loss: /verl/losses.py"),
        (
            {"verl": VERL | {"failures": [{"plugin": "sspo_verl", "error": "SyntaxError: x", "where": "a.py:3"}]}},
            FAILED,
            "the plugin fails to load: SyntaxError: x (a.py:3)",
        ),
        ({"verl": VERL | {"failures": [{"plugin": "another", "error": "E", "where": ""}]}}, OK, "has our"),
    ],
)
def test_what_is_registered(change, status, said):
    check = plugin.check_registered(
        "here", notes(**{"package": HOME} | {"verl": VERL, "registered": REGISTERED, "wrapped": WRAPPED} | change)
    )
    assert (check.status, said in check.found) == (status, True), check


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ({"verl.a, by f": None, "verl.a, by g": None, "verl.b, by h": None}, OK, "all 3 fit: verl.a, verl.b"),
        (
            {"verl.a, by f": None, "verl.b, by g": "RuntimeError: no x", "verl.c, by h": "ImportError: y"},
            FAILED,
            "2 of 3 do not fit: verl.b, by g: RuntimeError: no x; verl.c, by h: ImportError: y",
        ),
        (None, FAILED, "could not be tried: ImportError: no verl (a.py:3)"),
    ],
)
def test_seams(found, status, said):
    failed = Notes([{"step": "seams", "error": "ImportError: no verl", "where": "a.py:3"}], "", "")
    (check,) = plugin.check_seams(failed if found is None else notes(seams=found))
    assert (check.status, check.found) == (status, said)


@pytest.mark.parametrize(
    ("errors", "starts"),
    [([], 1), ([f"Exception: {RAY_NODE_FAILED}. This"], 2), ([f"Exception: {RAY_NODE_FAILED}."] * 9, 2), (["Full"], 1)],
)
def test_ray_is_tried_again_alone_if_its_node_did_not_start_in_time(monkeypatch, errors, starts):
    started = []

    class Fake:
        def __init__(self, script, which, *_):
            started.append(which)
            self.which = which

        def running(self):
            return False

        def notes(self):
            tried = started.count("ray") - 1
            if self.which == "ray" and tried < len(errors):
                return Notes([{"step": "ray", "error": errors[tried], "where": ""}], "", "")
            return Notes([{"step": "ray", "value": "2"}], "", "")

        def ask_to_end(self):
            pass

        def end(self):
            pass

    monkeypatch.setattr(examine, "Probe", Fake)
    checks = examine.examine(None, None, with_ray=True, show=lambda running: None)
    assert (started.count("ray"), len(started)) == (starts, starts + 3)
    (ray,) = [check for check in checks if check.name == "plugin in a Ray worker"]
    assert ray.found.startswith("no worker answered" if len(errors) < starts else f"no local Ray: {errors[0]}")


def test_errors_of_a_probe_are_told():
    failed = Notes([{"step": "verl", "error": "ImportError: no torch", "where": "verl/x.py:1"}], "ended", "")
    check = plugin.check_registered("here", failed)
    assert (check.status, check.found) == (FAILED, "import verl: ImportError: no torch (verl/x.py:1)")
    (check,) = plugin.check_ray(Notes([{"step": "ray", "error": "OSError: full", "where": ""}], "", ""))
    assert (check.status, check.found) == (FAILED, "no local Ray: OSError: full")
    slow = [{"step": "ray", "error": f"Exception: {RAY_NODE_FAILED}. This", "where": ""}]
    (check,) = plugin.check_ray(Notes(slow, "", ""))
    assert (check.status, check.fix) == (FAILED, RAY_NODE_ADVICE)
    worker = [{"step": "ray", "value": "2"}, {"step": "worker", "error": "WorkerCrashedError: gone", "where": ""}]
    (check,) = plugin.check_ray(Notes(worker, "", ""))
    assert (check.status, check.found) == (FAILED, "no worker answered: WorkerCrashedError: gone")
    (check,) = plugin.check_vllm(Notes([{"step": "vllm", "error": "ImportError: _C", "where": ""}], "", ""))
    assert (check.status, check.found) == (FAILED, "ImportError: _C")
    (check,) = composition.check_composition(Notes([], "no answer within 240 seconds", ""))
    assert (check.status, check.found) == (FAILED, "does not compose: no answer within 240 seconds")


def test_vllm_on_a_cpu_needs_our_plugin():
    loaded = {"needed": True, "linear": f"{HOME}/cpu/for_vllm.py", "failures": []}
    (check,) = plugin.check_vllm(notes(package=HOME, vllm="0.27.1", general_plugins=loaded))
    assert check.status == OK
    (check,) = plugin.check_vllm(notes(package=HOME, vllm="0.27.1", general_plugins=loaded | {"linear": "/vllm/u.py"}))
    assert (check.status, "VLLM_PLUGINS" in check.fix) == (FAILED, True)
    (check,) = plugin.check_vllm(notes(package=HOME, vllm="0.24.0", general_plugins={"needed": False}))
    assert check.status == OK


def test_another_sspo_on_hydras_path():
    found = composition.EXPECTED | {"loss_mode": "gspo"}
    (check,) = composition.check_composition(notes(composed=found))
    assert (check.status, check.found) == (FAILED, "loss_mode is gspo, not sspo")


# ---- the machine

CPU = {"torch": "2+cpu", "built for": None, "devices": [], "count": 0, "cores": 2, "platform": "cpu"}
CPU |= {"platform of": "sspo_verl.plugin.cpu.platform"}
CUDA = CPU | {"torch": "2", "built for": "cuda", "platform": "cuda", "platform of": "verl"}
H200 = {"name": "NVIDIA H200", "bytes": 139 * 2**30}


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (CPU, OK, "CPU, 2 cores"),
        (CPU | {"platform": "cuda", "platform of": "verl"}, FAILED, "verl chose cuda of verl"),
        (CUDA | {"devices": [H200] * 2, "count": 2}, OK, "2 x cuda: NVIDIA H200 (139 GiB), NVIDIA H200 (139 GiB)"),
        (CUDA, FAILED, "sees no device"),
        (CUDA | {"count": 1, "platform": "cpu"}, FAILED, "verl chose the platform cpu"),
    ],
)
def test_machine(monkeypatch, found, status, said):
    monkeypatch.setattr(machine, "_has_nvidia_gpu", lambda: False)
    (check,) = machine.check_machine(notes(machine=found))
    assert (check.status, said in check.found) == (status, True), check


def test_a_cpu_build_of_torch_beside_a_gpu_is_a_warning(tmp_path, monkeypatch):
    for name in ("nvidiactl", "nvidia0"):
        (tmp_path / name).touch()
    assert machine._has_nvidia_gpu(tmp_path)
    (tmp_path / "nvidia0").unlink()
    assert not machine._has_nvidia_gpu(tmp_path)
    monkeypatch.setattr(machine, "_has_nvidia_gpu", lambda: True)
    assert machine.check_machine(notes(machine=CPU))[0].status == WARNING


# ---- tokenizers


def words(vocabulary: list[str], normalizer=None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of the 256 bytes and these tokens, which it takes wherever they are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if normalizer is not None:
        core.normalizer = normalizer
    core.add_tokens(vocabulary)
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


def examined(any_tokenizer) -> list[Check]:
    probe = runpy.run_path(str(Path(tokenizer_probe.__file__).with_name("probe.py")))
    found = probe["Notes"]()
    tokenizer_probe.look(found, any_tokenizer)
    return tokenizer.check_tokenizer(Notes(found.found, "", ""))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (
            "qwen",
            "Qwen2Tokenizer: 2,178 of 151,646 tokens hold a line break; 201 of these are blank, 0 have text after it",
        ),
        ("sentencepiece", "1 of 32,000 tokens hold a line break; 1 of these are blank, 0 have text after it"),
    ],
)
def test_vocabularies_that_fit(name, count, request):
    breaks, cuts = examined(request.getfixturevalue(name))
    assert (breaks.status, cuts.status) == (OK, OK)
    assert breaks.found.endswith(count)
    assert cuts.found == "13 texts, 51 segments: the tokens are cut where the text is"


def test_tokens_with_text_after_their_line_break(request):
    breaks, cuts = examined(words(["}\n\n/", "=\n"]))
    assert (breaks.status, cuts.status) == (WARNING, WARNING)
    assert "3 of 258 tokens hold a line break; 1 of these are blank, 1 have text after it" in breaks.found
    assert "'}\\n\\n/'" in breaks.found
    assert cuts.found == "13 texts, 51 segments; braces and comments: 2 ends of segments differ"
    breaks, cuts = examined(request.getfixturevalue("tekken"))
    assert (breaks.status, cuts.status) == (WARNING, WARNING)
    assert "1,069 of 131,072 tokens hold a line break" in breaks.found
    assert "67 have text after it" in breaks.found, "66 do not end with it, and one has a line within: '.\\n//\\n\\n'"


def test_tokens_with_indentation_after_their_line_break():
    """SmolLM2's vocabulary has such tokens: the indentation then belongs to the line before."""
    breaks, cuts = examined(words(["\n ", "\n  ", "\n    ", ":\n  "]))
    assert (breaks.status, cuts.status) == (OK, OK)
    cut = "the tokens are cut where the text is, or after the next line's indentation"
    assert cuts.found == f"13 texts, 51 segments: {cut}"


def test_a_tokenizer_without_line_breaks():
    core = Tokenizer(models.WordLevel(vocab={"a": 0, "b": 1}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (check,) = examined(PreTrainedTokenizerFast(tokenizer_object=core))
    assert check.status == FAILED
    assert "No token of" in check.found
    assert "algorithm=gspo" in check.fix


def test_a_tokenizer_that_loses_line_breaks():
    breaks, cuts = examined(words([], normalizers.Replace("\n", " ")))
    assert (breaks.status, cuts.status) == (OK, FAILED)
    assert "single line breaks: 2 line breaks fewer" in cuts.found
    assert "no line break:" not in cuts.found


def test_a_table_that_does_not_fit_is_found(monkeypatch):
    """Cuts that no odd token explains: here, a table in which an equals sign ends a line."""
    from sspo_verl import segments

    honest = segments.line_break_table

    def table_with_equals(tokenizer):
        table = honest(tokenizer)
        table[tokenizer.convert_tokens_to_ids("=")] |= segments.ENDS_LINE
        return table

    monkeypatch.setattr(segments, "line_break_table", table_with_equals)
    _, cuts = examined(words([]))
    assert cuts.status == FAILED
    assert "single line breaks: 2 ends of segments differ" in cuts.found


def test_a_folder_without_tokenizer(tmp_path):
    file = tmp_path / "notes"
    (tmp_path / "model").mkdir()
    tokenizer_probe.main(str(file), str(tmp_path / "model"))
    (check,) = tokenizer.check_tokenizer(Notes([json.loads(line) for line in file.read_text().splitlines()], "", ""))
    assert check.status == FAILED
    assert check.found.startswith("does not load: ")
    assert "actor_rollout_ref.model.path" in check.fix


GOOD = """
import torch
def good(tokenizer, settings):
    return lambda token_ids, response_mask, entropy: response_mask.bool().long() - 1
"""
# Each is wrong in one way.
BAD = {
    "across_rows": "response_mask.bool().cumsum(1) * (token_ids.shape[0] > 9)",
    "by_place": "torch.arange(token_ids.shape[1]).expand(token_ids.shape) // 4",
    "under_the_mask": "response_mask.bool().cumsum(1) * (token_ids < 0).any(1, True)",
    "in_place": "response_mask.zero_() - 1",
}
BROKEN = {
    "across_rows": "cut into micro-batches",
    "by_place": "padding left and right",
    "under_the_mask": "what is under the mask",
    "in_place": "the same twice",
}


def segmenter_checks(tmp_path, spec):
    file = tmp_path / "notes"
    segmenter_probe.main(str(file), spec)
    notes = Notes([json.loads(line) for line in file.read_text().splitlines()], "", "")
    return {check.name: check for check in segmenter.check_segmenter(spec, notes)}


@pytest.mark.parametrize("spec", ["sentence", "line_break", "response", "entropy:0.2", "regex:[.;]", "GOOD"])
def test_a_segmenter_that_holds(tmp_path, spec):
    (tmp_path / "mine.py").write_text(GOOD)
    checks = segmenter_checks(tmp_path, f"{tmp_path}/mine.py:good" if spec == "GOOD" else spec)
    assert len(checks) == 9
    assert {check.status for check in checks.values()} == {OK}


@pytest.mark.parametrize("kind", BAD)
def test_a_segmenter_that_does_not_is_told_what_it_breaks(tmp_path, kind):
    (tmp_path / f"{kind}.py").write_text(GOOD.replace("response_mask.bool().long() - 1", BAD[kind]))
    check = segmenter_checks(tmp_path, f"{tmp_path}/{kind}.py:good")[f"segmenter: {BROKEN[kind]}"]
    assert check.status == FAILED
    assert "on random tokens (0): " in check.found


def test_a_segmenter_that_cannot_be_made(tmp_path):
    (check,) = segmenter_checks(tmp_path, "words").values()
    assert check.status == FAILED
    assert "segmenter=words is unknown" in check.found


def test_cutting_text_agrees_with_the_reference():
    rng = random.Random(0)
    texts = ["", "\n", " ", "a", "a\n", "\na", "\n\n\n", "a\n \n", *(random_text(rng) for _ in range(2000))]
    for text in texts:
        ends = segment_ends(text)
        assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == reference.lines_of_text(text)


# ---- what is shown

CHECKS = [
    Check("Python", OK, "3.11"),
    Check("vLLM", WARNING, "odd", "Try another."),
    Check("plugin in the driver", FAILED, "[b]broken[/b] " + 30 * "very ", "Fix it."),
    Check("tokenizer", SKIPPED, "no model"),
]


def test_text_for_a_pipe():
    lines = show.as_text(CHECKS, 12.3).splitlines()
    assert lines[0] == "ok       Python                3.11"
    assert lines[2] == "                               to fix: Try another."
    assert lines[3] == "failed   plugin in the driver  [b]broken[/b] " + 30 * "very "
    assert lines[-1] == "Not all checks passed: 1 ok, 1 warning, 1 failed, 1 skipped (12 s)"
    assert show.as_text(CHECKS[:2], 1).splitlines()[-1] == "All checks passed: 1 ok, 1 warning (1 s)"


def test_table_for_a_terminal():
    console = Console(width=60, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    show.on_terminal(CHECKS, 12.3, console)
    text = console.export_text()
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "[b]broken[/b]" in text, "what was found is not markup"
    assert "to fix: Fix it." in text


def test_json():
    found = json.loads(show.as_json(CHECKS))
    assert found["ok"] is False
    assert found["checks"][1] == {"name": "vLLM", "status": "warning", "found": "odd", "fix": "Try another."}
    assert json.loads(show.as_json(CHECKS[:2]))["ok"] is True


def test_a_check_that_raises_is_a_failed_check():
    (check,) = guarded("versions", lambda: [1 / 0])
    assert (check.name, check.status) == ("versions", FAILED)
    assert "ZeroDivisionError: division by zero" in check.found


def test_what_failed_must_say_how_to_mend_it():
    with pytest.raises(AssertionError, match="how to fix"):
        Check("x", FAILED, "broken")
    assert PACKAGES.joinpath("sspo_verl").is_dir()
