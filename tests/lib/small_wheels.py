"""Wheels made by hand, so that the tests of scripts/env.sh download nothing. Also what builds their small package."""

import base64
import hashlib
import os
import time
import zipfile
from pathlib import Path


def make_wheel(folder: str | Path, name: str, version: str, files: dict[str, str]) -> str:
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    file = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / file, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return file


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Called by uv."""
    if "STUCK_BUILD" in os.environ:
        Path(os.environ["STUCK_BUILD"]).touch()
        time.sleep(600)
    Path("build").mkdir()  # what setuptools leaves behind
    return make_wheel(
        wheel_directory, "sspo_verl", "0.1", {str(p): p.read_text() for p in Path("sspo_verl").glob("*.py")}
    )
