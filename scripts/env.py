"""Creates and repairs `.venv` with uv; called by env.sh. Standard library only: nothing is installed yet.

Every run compares what is installed with the pins in requirements/ and with each package's own list of its files.
`.venv/sspo.json` records the two things that cannot be checked that way: the platform, and a hash of the sources that
this package was installed from. It is written last, so an environment whose creation was interrupted is created again;
uv keeps what was downloaded.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
VENV = ROOT / ".venv"
SITE = VENV / "lib" / f"python{PYTHON}" / "site-packages"
STAMP = VENV / "sspo.json"
TOOLS = ROOT / ".uv"  # uv and the Python that pip runs in, the lock, the log
UV = TOOLS / "venv" / "bin" / "uv"
LOG = TOOLS / "env.log"
SOURCES = ("sspo_verl", "hydra_plugins", "setup.py", "pyproject.toml")  # what the installed package is built from
BUILT_WITH = ("README.md", "LICENSE", "MANIFEST.in")  # what its build also reads
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own; SSPO_TORCH_INDEX replaces it
# Variables that would make an installation go outside .venv, or change what is installed. A constraint in pip's
# configuration file is kept; one in the environment often belongs to a container, for its own packages.
STRAY = re.compile(
    "PYTHON(PATH|HOME)|PIP_(TARGET|PREFIX|ROOT|USER|REQUIREMENT|CONSTRAINT|REQUIRE_VIRTUALENV)|UV_(SYSTEM_PYTHON|PYTHON"
    "|CONSTRAINT|OVERRIDE|EXCLUDE|EXCLUDE_NEWER|NO_BUILD|NO_BINARY|NO_BUILD_ISOLATION|REQUIRE_HASHES|TORCH_BACKEND)"
)
# {pip's setting: uv's equivalent variable}; not passed as arguments, because an address may contain a password.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}


class Failure(Exception):
    """A stage failed; the text says which, why and where its log is."""


def say(text: str, end: str = "\n") -> None:
    print(f"env: {text}", end=end, flush=True)


# ---- what is wanted and what is installed


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(name: str) -> dict[str, str]:
    """{name: version} from the `name==version` lines of a file in requirements/, names in canonical form."""
    lines = re.findall(r"^([\w.-]+)==(\S+)", (REQUIREMENTS / f"{name}.txt").read_text(), re.MULTILINE)
    return {canonical(name): version for name, version in lines}


def hash_sources() -> str:
    """Hash of the files that the installed package is built from."""
    digest = hashlib.sha256()
    for top in (ROOT / source for source in SOURCES):
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def installed(name: str = "") -> dict[Path, str]:
    """{record of pip or uv (`*.dist-info`): package}, of all packages or of one."""
    found = {place: canonical(place.name.partition("-")[0]) for place in SITE.glob("*.dist-info")}
    return {place: owner for place, owner in found.items() if name in ("", owner)}


def find_wrong(pins: dict[str, str]) -> dict[str, str]:
    """{pin that is not installed correctly: what is wrong}. An empty pin allows any version."""
    places: dict[str, list[Path]] = {}
    files: dict[Path, list[tuple[str, str]]] = {}
    sizes: dict[str, set[str]] = {}  # several if packages contain the same file
    for place, name in installed().items():
        places.setdefault(name, []).append(place)
        files[place] = read_record(place)
        for path, size in files[place]:
            sizes.setdefault(path, set()).add(size)
    wrong = {}
    for name, pin in pins.items():
        versions = [place.name.removesuffix(".dist-info").partition("-")[2] for place in places.get(name, [])]
        if not versions:
            wrong[name] = "is not installed"
        elif len(versions) > 1 or pin not in ("", versions[0]):
            wrong[name] = f"is {' and '.join(sorted(versions))}, the pin is {pin}"
        elif damage := find_damage(files[places[name][0]], sizes):
            wrong[name] = damage
    return wrong


def read_record(place: Path) -> list[tuple[str, str]]:
    """The files of an installed package, with their sizes."""
    try:
        rows = [line.rsplit(",", 2) for line in (place / "RECORD").read_text().splitlines() if line]
    except OSError:
        return []
    return [(row[0].strip('"'), row[2]) for row in rows if not row[0].endswith(".pyc")]


def find_damage(files: list[tuple[str, str]], sizes: dict[str, set[str]]) -> str:
    if not files:
        return "has lost the list of its files"
    for path, size in files:
        try:
            found = os.stat(f"{SITE}/{path}").st_size
        except OSError:
            return f"lacks {path}"
        if size and str(found) not in sizes[path]:
            return f"has a {path} that differs from the installed one"
    return ""


def read_stamp() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def reason_to_make(platform: str) -> str:
    """Why .venv has to be created again; empty if it is usable."""
    python = VENV / "bin" / "python"
    if not os.path.lexists(python):
        return "it is missing"
    if sys.executable != str(python) and not does_run(python):
        return "its Python does not run"
    if not SITE.is_dir():
        return f"it is not for Python {PYTHON}"
    if read_stamp().get("platform") != platform:
        return f"it was made for {read_stamp().get('platform', 'something else, or not finished')}"
    return ""


def does_run(python: Path) -> bool:
    try:
        return subprocess.run([python, "-I", "-S", "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def is_right(platform: str, pins: dict[str, str]) -> bool:
    if reason_to_make(platform) or read_stamp().get("source") != hash_sources():
        return False
    return not find_wrong(pins | {"sspo-verl": ""})


# ---- repairing


def fix(platform: str, pins: dict[str, str]) -> None:
    reason = reason_to_make(platform)
    if reason:
        say(f"making .venv for {platform}, Python {PYTHON} ({reason})")
        if VENV.is_dir() and any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists():
            raise Failure(f"{VENV} exists and is not a Python environment. Move it out of the way.")
    run = Runner()
    run.prepare_uv()
    if reason:
        # Relocatable: the checkout can be moved. This removes the stamp.
        run("a new environment", UV, "venv", "--clear", "--relocatable", "--python", base_python(), VENV)
    # The files in .venv are links into uv's cache: one that was edited in place is also wrong there.
    for cache in ((), ("--no-cache",)):
        if wrong := find_wrong(pins):
            name, what = next(iter(wrong.items()))
            if not reason:
                say(f"fixing .venv: {name} {what}" + f", and {len(wrong) - 1} more" * (len(wrong) > 1))
            install_packages(run, platform, {name: pins[name] for name in wrong}, cache)
    for name, what in find_wrong(pins).items():
        raise Failure(f"uv succeeded, but {name} {what}. Full log: {LOG}")
    source = hash_sources()
    if read_stamp().get("source") != source or find_wrong({"sspo-verl": ""}):
        install_own(run)
    new = STAMP.with_suffix(".new")
    new.write_text(json.dumps({"platform": platform, "source": source}))
    new.replace(STAMP)


def base_python() -> str:
    return getattr(sys, "_base_executable", sys.executable)  # not the one in .venv, which may be replaced


def install_packages(run: Runner, platform: str, pins: dict[str, str], cache: tuple[str, ...]) -> None:
    for name in pins:  # if uv cannot uninstall the remains of a package, it has to install over it
        places = installed(name)
        if len(places) > 1 or not all((place / "RECORD").exists() for place in places):
            for place in places:
                shutil.rmtree(place)
    # Source packages are built with the pinned setuptools.
    options = (*cache, "--build-constraints", REQUIREMENTS / f"{platform}.txt")
    index = os.environ.get("SSPO_TORCH_INDEX") or ("" if run.no_index else TORCH_INDEX)
    torch = {name: pin for name, pin in pins.items() if name == "torch" and pin.endswith("+cpu") and index}
    try:
        or_else = "not all of them are where pip looks" if torch else "failed"
        run.install(name_stage(pins), pins, *options, *run.no_index, or_else=or_else)
    except Failure as failure:
        if "No solution found" not in str(failure) or not torch:
            raise
        run.install(f"CPU build of torch from {index}", torch, *options, "--default-index", index)
        pins = {name: pin for name, pin in pins.items() if name not in torch}
        if pins:
            run.install(name_stage(pins), pins, *options, *run.no_index)
    said = run("trying it out", VENV / "bin/python", "-c", "import numpy, torch; print(torch.cuda.is_available())")
    if platform == "cuda" and "True" not in said:
        say("note: torch sees no GPU here. CUDA 13 needs a driver of version 580 or newer (nvidia-smi shows it).")
        say("note: SSPO_PLATFORM=cpu bash scripts/env.sh makes an environment that needs no GPU.")


def name_stage(pins: dict[str, str]) -> str:
    return f"{len(pins)} packages" if len(pins) > 1 else next(iter(pins))


def install_own(run: Runner) -> None:
    """Install this package from a copy: a build leaves files behind, and picks up those of earlier builds."""
    with tempfile.TemporaryDirectory(prefix="sspo-build-") as scratch:
        copy = Path(scratch) / "sspo_verl"
        copy.mkdir()
        for name in SOURCES + BUILT_WITH:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, copy / name)
        run.install("this package", copy, "--no-cache", "--no-build-isolation")


# ---- commands


def read_pip_settings(listed: str) -> dict[str, str]:
    """pip's settings (`pip config list`), with pip's precedence: its variables over [install] over [global]."""
    settings = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.(\S+?)=(.*)$", listed, re.MULTILINE):
            settings[name] = str(ast.literal_eval(value))
    return settings


class Runner:
    """Runs the stages of an installation, with pip's settings applied to uv; their output goes to the log."""

    def __init__(self) -> None:
        LOG.write_text("")
        self.no_index: tuple[str, ...] = ()
        self.variables = {key: value for key, value in os.environ.items() if not STRAY.fullmatch(key)}
        # All indexes have equal priority, as in pip.
        self.variables |= {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_DOWNLOADS": "never", "PIP_USER": "0"}
        # Set in many containers. Then each of a run's processes would compile again all that it imports, and Ray's
        # agents, which have 15 s to start, may take longer.
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            self.variables["UV_COMPILE_BYTECODE"] = "1"

    def prepare_uv(self) -> None:
        """Install uv if it is missing; apply pip's settings to it."""
        pin = f"uv=={read_pins('uv')['uv']}"
        pip = (TOOLS / "venv" / "bin" / "python", "-I", "-m", "pip", "--disable-pip-version-check")
        if self.output(UV, "--version").split()[:2] != pin.split("==") or not self.output(*pip, "--version"):
            self("pip", base_python(), "-m", "venv", "--clear", TOOLS / "venv")
            self(pin, *pip, "install", "--no-deps", "--progress-bar", "off", pin)
        settings = read_pip_settings(self.output(*pip, "config", "list"))
        if settings.pop("no-index", "").lower() in ("1", "true", "yes", "on"):
            self.no_index = ("--no-index",)
        for name in PIP_TO_UV.keys() & settings.keys():
            values = settings[name].split()
            self.variables.setdefault(PIP_TO_UV[name], ("," if name == "find-links" else " ").join(values))

    def install(self, stage: str, what: dict[str, str] | Path, *options: str | Path, or_else: str = "failed") -> None:
        """Install pins, or the project in a folder. or_else: description of a failure."""
        if isinstance(what, dict):
            todo = TOOLS / "todo.txt"
            # ===, because == also accepts another build of the version (2.11.0+cpu for 2.11.0).
            todo.write_text("".join(f"{name}==={pin}\n" for name, pin in what.items()))
            arguments = ("-r", todo)
        else:
            arguments = (what,)
        options = ("--no-deps", "--reinstall", "--no-progress", *options)
        self(stage, UV, "pip", "install", "--python", VENV / "bin" / "python", *options, *arguments, or_else=or_else)

    def output(self, *command: str | Path) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, env=self.variables, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return ""

    def __call__(self, stage: str, *command: str | Path, or_else: str = "failed") -> str:
        """Run a stage; return its output.

        Raises:
            Failure: If its exit status is not 0.
        """
        began = time.monotonic()
        say(f"  {stage} ", end="")
        with open(LOG, "a+") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n")
            log.flush()
            start = log.tell()
            # The child inherits the lock: if this process is killed, it is held until the child ends.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.variables,
                close_fds=False,
                process_group=0,
            )
            try:
                child.wait()
            except BaseException:  # interrupted: also end what it started
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                raise
            log.seek(start)
            said = log.read()
        print(f"({time.monotonic() - began:.0f} s)" if child.returncode == 0 else f"- {or_else}", flush=True)
        if child.returncode:
            last = "".join(f"\n  | {line}" for line in said.splitlines()[-15:])
            raise Failure(f"{stage}: exit status {child.returncode}.{last}\nFull log: {LOG}")
        return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/env.sh", description="Make or fix .venv from the pinned versions.")
    parser.add_argument("--test", action="store_true", help="also what the tests need")
    test = parser.parse_args().test
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("env: ended; the same command continues from here"))
    platform = os.environ["SSPO_PLATFORM"]  # env.sh sets it
    pins = read_pins(platform) | (read_pins("test") if test else {})
    began = time.monotonic()
    took = ""
    try:
        if not is_right(platform, pins):
            TOOLS.mkdir(exist_ok=True)
            with open(TOOLS / "lock", "w") as lock:
                os.set_inheritable(lock.fileno(), True)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    say("another run is working on .venv; waiting for it")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_right(platform, pins):  # another run may have done the work in the meantime
                    fix(platform, pins)
            took = f", {time.monotonic() - began:.0f} s"
    except Failure as failure:
        print("".join(f"env: {line}\n" for line in str(failure).splitlines()), end="", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.exit("\nenv: interrupted; the same command continues from here")
    say(f".venv is ready ({platform}, Python {PYTHON}){took}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
