"""The command `sspo`: its group, its help everywhere, its exit codes, and how little `--help` imports."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sspo_verl.tools import main as cli
from sspo_verl.tools.main import COMMANDS, FOLDERS, main

SSPO = Path(sys.executable).with_name("sspo")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)


def test_help_names_every_command(tmp_path):
    done = run(SSPO, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name, what in COMMANDS.items():
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [name])
        assert " ".join(what.split()[:3]) in " ".join(line.split())
    assert "Exit codes" in done.stdout
    assert run(SSPO, "-h", cwd=tmp_path).stdout == done.stdout
    assert run(sys.executable, "-m", "sspo_verl.tools", "--help", cwd=tmp_path).stdout == done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    command = importlib.import_module(f"sspo_verl.tools.{FOLDERS.get(name, name)}.command").command
    assert isinstance(command, click.Command)
    assert command.name == name
    for flag in ("--help", "-h"):
        done = CliRunner().invoke(main, [name, flag])
        assert done.exit_code == 0
        assert f"{name} [OPTIONS]" in done.stdout
    assert len(command.help or "") > 20
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"sspo {name} {parameter.opts[0]} has no help"


def test_version_is_that_of_the_installed_package(tmp_path):
    done = run(SSPO, "--version", cwd=tmp_path)
    assert done.stdout == f"sspo_verl, version {importlib.metadata.version('sspo_verl')}\n"


def test_help_imports_click_and_nothing_of_weight(tmp_path):
    """By what is imported, not by time: 116 modules were there when this was written, and torch alone brings 1,000."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from sspo_verl.tools.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(' '.join(set(sys.modules) - before))\n"
    )
    imported = set(run(sys.executable, "-c", script, cwd=tmp_path).stdout.splitlines()[-1].split())
    foreign = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert foreign == {"click", "sspo_verl"}
    assert len(imported) < 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage: sspo"),
        (["doctr"], "No such command 'doctr'"),
        (["--nonsense"], "No such option"),
        *[([name, "--nonsense"], "No such option") for name in COMMANDS],
    ],
)
def test_bad_usage_is_2_and_said_on_stderr(arguments, said):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_an_interrupt_is_130_and_not_a_finding(monkeypatch):
    @click.command("doctor")
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: interrupted)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 130
    assert done.stderr == "sspo: interrupted\n"
