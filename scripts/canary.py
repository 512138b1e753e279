"""Canary: tests the plugin's hooks with other versions of verl. Needs an environment with this package and its verl.

    python scripts/canary.py 0.8.0 0.9.0 0.9.1          # from the package index
    python scripts/canary.py path/to/a/checkout/of/verl

Each verl is put before the installed one in a separate process, without its dependencies; nothing is installed.
Prints a table; the exit code is 1 if a hook does not fit one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(wanted: list[str]) -> int:
    if not wanted:
        sys.exit(__doc__)
    fits = True
    with tempfile.TemporaryDirectory(prefix="canary-") as folder:
        for version in wanted:
            path = Path(version).resolve() if Path(version).is_dir() else downloaded(version, Path(folder) / version)
            fits &= tell(version, probe(path))
    return 0 if fits else 1


def downloaded(version: str, folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), f"verl=={version}")
    subprocess.run(pip, check=True)
    return folder


def probe(path: Path) -> dict:
    """The report of `sspo_verl.plugin.seams` with this verl, or {"error": the last line that the process printed}."""
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1", "VERL_USE_EXTERNAL_PLUGINS": "none"}
    command = (sys.executable, "-W", "ignore", "-m", "sspo_verl.plugin.seams")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    found = json.loads(done.stdout.splitlines()[-1])
    if not Path(found["file"]).is_relative_to(path):
        return {"error": f"imported {found['file']} and not the verl in {path}"}
    return found


def tell(wanted: str, found: dict) -> bool:
    if "error" in found:
        print(f"{wanted}: does not import: {found['error']}")
        return False
    broken = {seam: error for seam, error in found["seams"].items() if error}
    print(f"{wanted}: verl {found['version']}, {len(found['seams']) - len(broken)} of {len(found['seams'])} seams fit")
    for seam, error in broken.items():
        print(f"  {seam}\n    {error}")
    return not broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
