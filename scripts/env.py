"""Makes and mends `.venv`; env.sh finds a Python for this. Standard library only, as nothing is installed yet.

An environment is right when it was made for this platform, Python and checkout, and holds every pin of requirements/
in its version with all of its files, and this package as it stands in the checkout. Looking at all of that takes half
a second; a stamp keeps what was seen to be right, so that a second run has only a fingerprint to compare.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from env_state import SOURCES, broken, dist_infos, fingerprint, hash_sources, read_pins

ROOT = Path(__file__).resolve().parent.parent
OWN = "sspo-verl"
BUILT_WITH = ("README.md", "LICENSE")  # what the build of this package reads beside its sources
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own; SSPO_TORCH_INDEX replaces it
# GB that a new environment takes: in .venv, and for the downloads, which pip keeps in the temporary directory.
SPACE = {"cpu": (3.6, 1.0), "cuda": (12.5, 5.0)}
# Settings that would lead an installation out of .venv, or change what is installed.
STRAY = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_REQUIREMENT")
HINTS = {
    "No space left on device": "The disk is full. Downloads go to the temporary directory; TMPDIR=/elsewhere moves it.",
    "NewConnectionError|name resolution|Network is unreachable|ConnectTimeout|Read timed out|ProxyError|SSLError"
    "|Connection refused|Max retries": "A download failed. Is this machine online, and do pip's settings fit it"
    " (pip config list)?",
    "No matching distribution found": "pip found no such version. Which package index does it see (pip config list)?",
}


# How pip begins a script: with the interpreter, or where the system would not take its path, through the shell.
FIRST_LINES = re.compile(
    rb"#!(?:/bin/sh\n'''exec' )?\"?(/[^\n\"]*/\.venv)(/bin/python[0-9.]*)\"?(?: \"\$0\" \"\$@\"\n' ''')?\n"
)


def first_lines(interpreter: bytes) -> bytes:
    if b" " not in interpreter and len(interpreter) < 125:
        return b"#!" + interpreter + b"\n"
    return b"#!/bin/sh\n'''exec' \"" + interpreter + b'" "$0" "$@"\n\' \'\'\'\n'


class Failure(Exception):
    """Something the user has to see to. `code` is the exit status."""

    def __init__(self, text: str, code: int = 1):
        super().__init__(text)
        self.code = code


def say(text: str) -> None:
    print(f"env: {text}", flush=True)


def choose_platform() -> str:
    """`cpu` or `cuda`: SSPO_PLATFORM, else by whether there is an NVIDIA GPU."""
    asked = os.environ.get("SSPO_PLATFORM", "")
    if asked not in ("", "cpu", "cuda"):
        raise Failure(f"SSPO_PLATFORM={asked!r}: set it to cpu or cuda, or unset it to go by what the machine has.", 2)
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Failure(
            f"the pinned versions are for Linux on x86_64, and this is {sys.platform} on {os.uname().machine}."
            " Install verl in its own way here, and then this package (pip install .)."
        )
    return asked or ("cuda" if has_nvidia_gpu() else "cpu")


def has_nvidia_gpu(devices: Path = Path("/dev")) -> bool:
    # nvidia-smi can take seconds: it is asked only where there is no device file (as in WSL).
    if any(re.fullmatch(r"nvidia\d+", device.name) for device in devices.glob("nvidia*")):
        return True
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


class Environment:
    def __init__(self, root: Path, platform: str, test: bool):
        self.root = root
        self.platform = platform
        self.test = test
        self.python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.base = getattr(sys, "_base_executable", sys.executable)  # not the one in .venv, which may have to go
        self.venv = root / ".venv"
        self.interpreter = self.venv / "bin" / "python"
        self.site = self.venv / "lib" / f"python{self.python}" / "site-packages"
        self.log = self.venv / "env.log"
        self.stamp_file = self.venv / "env.json"
        self.lock_fd = -1

    # ---- is it right?

    def pin_files(self) -> list[Path]:
        return [self.root / "requirements" / f"{name}.txt" for name in [self.platform] + ["test"] * self.test]

    def state(self) -> dict:
        """What the stamp of an environment that is right says."""
        return {
            "platform": self.platform,
            "python": self.python,
            "root": str(self.root),
            "pins": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in self.pin_files()},
            "source": hash_sources(self.root),
            "fingerprint": fingerprint(self.venv / "bin", self.site),
        }

    def stamp(self) -> dict:
        try:
            return dict(json.loads(self.stamp_file.read_text()))
        except (OSError, ValueError):
            return {}

    def differences(self) -> list[str]:
        """What differs from the stamp, in words. None: the environment is right."""
        stamp = self.stamp()
        if not stamp:
            return [
                "it is not there" if not self.interpreter.exists() else "it was not finished, or made by something else"
            ]
        state = self.state()
        texts = {
            "platform": "it was made for {}, wanted is {}",
            "python": "it was made for Python {}, wanted is {}",
            "root": "the checkout was at {} then, now at {}",
            "source": "the sources of this package changed",
            "fingerprint": "its files changed",
        }
        words = [text.format(stamp.get(key), state[key]) for key, text in texts.items() if stamp.get(key) != state[key]]
        pins = stamp.get("pins", {})
        words += [
            f"{name} {'changed' if name in pins else 'is asked for'}"
            for name, digest in state["pins"].items()
            if pins.get(name) != digest
        ]
        return words

    def is_usable(self) -> bool:
        """Whether .venv has a Python of the right version that runs, so that it can be mended."""
        code = "import sys; print(*sys.version_info[:2], sys.prefix)"
        command = [self.interpreter, "-I", "-c", code]
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return False
        return out.strip() == f"{self.python.replace('.', ' ')} {self.venv}"

    # ---- making it right

    def bring_up(self) -> None:
        began = time.monotonic()
        took = ""
        if self.differences():
            with self.locked():
                if reasons := self.differences():  # another run may have done the work meanwhile
                    self.mend("; ".join(reasons))
            took = f", {time.monotonic() - began:.0f} s"
        say(f".venv is ready ({self.platform}, Python {self.python}){took}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time works on .venv."""
        ours = {"pyvenv.cfg", "env.lock"}
        there = os.path.lexists(self.venv)
        held = os.listdir(self.venv) if self.venv.is_dir() else ["no folder"]
        if there and held and not ours.intersection(held):
            raise Failure(f"{self.venv} is there and is no Python environment. Move it out of the way.")
        self.venv.mkdir(exist_ok=True)
        with open(self.venv / "env.lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                say(f"process {file.read().strip() or '?'} is working on .venv; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self.lock_fd = file.fileno()
            yield

    def mend(self, reasons: str) -> None:
        stamp = self.stamp()
        # The tests' packages stay right once they are there, or a later --test would trust a stamp that lies.
        self.test = self.test or "test.txt" in stamp.get("pins", {})
        pins = {name: pin for file in self.pin_files() for name, pin in read_pins(file).items()}
        self.log.write_text("")
        usable = self.is_usable()
        fresh = not usable or stamp.get("platform", self.platform) != self.platform
        if not usable and stamp.get("python") == self.python:
            reasons = "its Python does not run"
        if fresh:
            say(f"making .venv for {self.platform}, Python {self.python} ({reasons})")
            self.check_space()
            self.remove()
            self.run("a bare environment", [self.base, "-m", "venv", str(self.venv)])
        else:
            say(f"mending .venv ({reasons})")
            self.follow_move()
        for rest in self.site.glob("~*"):  # pip leaves these when it is interrupted
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()

        wrong = broken(self.site, pins | {OWN: ""})
        own_wrong = wrong.pop(OWN, None) or stamp.get("source") != hash_sources(self.root)
        if wrong or own_wrong:
            self.unfinished()
        if wrong:
            if not fresh:
                name, what = next(iter(wrong.items()))
                say(f"{name} {what}" + (f", and {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""))
                if len(wrong) > len(pins) / 2:
                    self.check_space()
            self.install({name: pin for name, pin in pins.items() if name in wrong})
            for name, what in broken(self.site, pins).items():
                raise Failure(f"pip ended well, and yet {name} {what}. Its lines: {self.log}")
            self.try_out()
        if own_wrong:
            self.install_own()

        new = self.stamp_file.with_suffix(".new")
        new.write_text(json.dumps(self.state(), indent=1))
        new.replace(self.stamp_file)

    def unfinished(self) -> None:
        """Before the first change: whatever ends this run, the next one looks at everything."""
        self.stamp_file.unlink(missing_ok=True)
        if self.run_quietly([self.interpreter, "-m", "pip", "--version"]) != 0:
            for path in (self.site / "pip", *dist_infos(self.site, "pip")):
                shutil.rmtree(path, ignore_errors=True)
            self.run("pip", [str(self.interpreter), "-m", "ensurepip", "--default-pip"])

    def check_space(self) -> None:
        gb, downloads_gb = SPACE[self.platform]
        there = sum(file.lstat().st_blocks for file in self.venv.rglob("*") if file.is_file()) * 512 / 1e9
        temporary = Path(tempfile.gettempdir())
        needs = [(self.venv, max(0.0, gb - there)), (temporary, downloads_gb)]
        if self.venv.stat().st_dev == temporary.stat().st_dev:
            needs = [(self.venv, needs[0][1] + downloads_gb)]
        for folder, need in needs:
            free = shutil.disk_usage(folder).free / 1e9
            if free < need:
                way_out = (
                    "TMPDIR=/another/folder moves it" if folder == temporary else "Make room, or link .venv elsewhere"
                )
                raise Failure(
                    f"{need:.1f} GB are needed on the disk of {folder}, and {free:.1f} GB are free. {way_out}."
                )

    def remove(self) -> None:
        old = [path for path in self.venv.iterdir() if path.name not in ("env.lock", "env.log")]
        if old:
            say("  removing the old one")  # gigabytes: this can take a minute
        for path in old:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def follow_move(self) -> None:
        """Scripts in bin/ hold the full path of the environment: correct it in a checkout that was moved or copied."""
        here = os.fsencode(self.venv)
        moved = False
        for file in (self.venv / "bin").iterdir():
            if file.is_file() and not file.is_symlink():
                text = file.read_bytes()
                head = FIRST_LINES.match(text)
                if head and head[1] != here:
                    self.stamp_file.unlink(missing_ok=True)
                    file.write_bytes(first_lines(here + head[2]) + text[head.end() :])
                    moved = True
        if moved:  # the rest that holds the path is Python's own
            self.run("its new place", [self.base, "-m", "venv", "--without-pip", str(self.venv)])

    def install(self, pins: dict[str, str]) -> None:
        for name in pins:
            self.forget_if_unremovable(name)
        # ===, because == also takes another build of the version (2.11.0+cpu for 2.11.0).
        # Sources are built with the pinned setuptools: it comes first, and pip is kept from downloading another one.
        if "setuptools" in pins:
            self.run("setuptools", self.pip(f"setuptools==={pins.pop('setuptools')}"))
        if pins.get("torch", "").endswith("+cpu"):
            self.install_cpu_torch(f"torch==={pins.pop('torch')}")
        # pip itself compiles on one core only: where there is much to compile, it is done for all of it at once below.
        many = len(pins) > 20
        if pins:
            with tempfile.NamedTemporaryFile("w", prefix="sspo-pins-", suffix=".txt") as todo:
                todo.writelines(f"{name}==={pin}\n" for name, pin in pins.items())
                todo.flush()
                stage = f"{len(pins)} packages" if len(pins) > 1 else next(iter(pins))
                build = ["--no-build-isolation", "--use-pep517"] + ["--no-compile"] * many
                self.run(stage, self.pip(*build, "-r", todo.name), count=len(pins))
        if many:
            code = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"
            self.run("compiling", [str(self.interpreter), "-c", code, str(self.site)])

    def forget_if_unremovable(self, name: str) -> None:
        """Where pip cannot uninstall what is left of a package, it has to install over it."""
        places = dist_infos(self.site, name)
        if len(places) > 1 or any(not (place / "RECORD").exists() for place in places):
            for place in places:
                shutil.rmtree(place)

    def install_cpu_torch(self, pin: str) -> None:
        """From where the user's own settings lead pip, else from an index of CPU builds."""
        start = self.log.stat().st_size
        try:
            self.run(f"{pin} from where pip looks", self.pip(pin), or_else="not there")
        except Failure:
            if "No matching distribution" not in self.lines(start):
                raise
            index = os.environ.get("SSPO_TORCH_INDEX")
            # Who names an index wants it used, even if pip's settings are to use none.
            more = {"PIP_NO_INDEX": "0"} if index else {}
            index = index or TORCH_INDEX
            self.run(f"{pin} from {index}", self.pip("--index-url", index, pin), more=more)

    def install_own(self) -> None:
        self.forget_if_unremovable(OWN)
        # setuptools leaves build/ and *.egg-info beside what it builds: it gets a copy.
        with tempfile.TemporaryDirectory(prefix="sspo-build-") as scratch:
            copy = Path(scratch) / "sspo_verl"
            copy.mkdir()
            for name in SOURCES + BUILT_WITH:
                source = self.root / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                elif source.exists():
                    shutil.copy(source, copy / name)
            self.run("this package", self.pip("--no-build-isolation", str(copy)))

    def try_out(self) -> None:
        """Import what fails where a package does not fit the machine."""
        code = "import numpy, torch; print('CUDA:', torch.cuda.is_available())"
        start = self.log.stat().st_size
        self.run("trying it out", [str(self.interpreter), "-c", code])
        if self.platform == "cuda" and "CUDA: True" not in self.lines(start):
            say("note: torch sees no GPU here. CUDA 13 wants a driver of version 580 or newer (nvidia-smi shows it).")
            say("note: SSPO_PLATFORM=cpu bash scripts/env.sh makes an environment that does without a GPU.")

    # ---- commands

    def pip(self, *arguments: str) -> list[str]:
        options = ["--no-deps", "--force-reinstall", "--no-warn-script-location"]
        return [str(self.interpreter), "-m", "pip", "install", *options, *arguments]

    def variables(self, more: dict[str, str]) -> dict[str, str]:
        ours = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        ours |= {"PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off", "PYTHONNOUSERSITE": "1"}
        return {key: value for key, value in os.environ.items() if key not in STRAY} | ours | more

    def run_quietly(self, command: list) -> int:
        null = subprocess.DEVNULL
        try:
            return subprocess.run(command, stdout=null, stderr=null, env=self.variables({}), check=False).returncode
        except OSError:
            return 1

    def run(self, stage: str, command: list[str], count: int = 0, or_else: str = "", more: dict | None = None) -> None:
        """Run a stage, its lines in the log. or_else: said of its failure where something else is tried then."""
        began = time.monotonic()
        print(f"env:   {stage} ", end="", flush=True)
        with open(self.log, "a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            # The lock goes with the child: should this process be killed, it is held until the child has ended.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.variables(more or {}),
                cwd=self.venv,
                pass_fds=(self.lock_fd,),
                process_group=0,
            )
            try:
                self.watch(child, stage, start, count)
            except BaseException:
                print()
                end(child)
                raise
        if child.returncode == 0:
            print(f"({time.monotonic() - began:.0f} s)", flush=True)
            return
        print(f"- {or_else or 'failed'}", flush=True)
        raise Failure(self.explain(stage, child.returncode, start), abs(child.returncode))

    def watch(self, child: subprocess.Popen, stage: str, start: int, count: int) -> None:
        """Wait for a stage. On a terminal, show how many of its packages pip has come to."""
        show = count > 1 and sys.stdout.isatty()
        while True:
            try:
                child.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if show:
                    text = self.lines(start)
                    found = text.count("\nCollecting ")
                    now = "being unpacked" if "\nInstalling collected" in text else f"{found} downloaded"
                    print(f"\r\033[Kenv:   {stage}, {now} ", end="", flush=True)
        if show:
            print(f"\r\033[Kenv:   {stage} ", end="")

    def lines(self, start: int) -> str:
        with open(self.log, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def explain(self, stage: str, code: int, start: int) -> str:
        text = self.lines(start)
        last = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING: Location")][-15:]
        hints = [hint for pattern, hint in HINTS.items() if re.search(pattern, text)][:1]
        head = f"{stage}: exit status {code}. Its last lines:"
        return "\n".join([head, *(f"  | {line}" for line in last), *hints, f"All of its lines: {self.log}"])


def end(child: subprocess.Popen) -> None:
    """End a command with all that it started; pip needs a moment to delete what it downloaded."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=20)
            return


def interrupted(number: int, _frame: object) -> NoReturn:
    """An exception, so that pip is ended as well."""
    raise Failure("interrupted; the same command goes on from here", 128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/env.sh", description="Make or mend .venv from the pinned versions.")
    parser.add_argument("--test", action="store_true", help="also what the tests need")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        Environment(ROOT, choose_platform(), arguments.test).bring_up()
    except Failure as failure:
        for line in str(failure).splitlines():
            print(f"env: {line}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
