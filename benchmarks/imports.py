"""Cost of the plugin in a process that does not train: python benchmarks/imports.py [--verl 5] [--hydra 20]

1. `import verl` in fresh processes with the plugin on and off (VERL_USE_EXTERNAL_PLUGINS), in turn: wall time, CPU
   time, resident memory, modules. The variation between runs is larger than the plugin's cost, so each process with
   verl's plugins off then loads the plugin separately: the same work at the same time, measured alone.
2. A Hydra application that does nothing, with our Hydra plugin visible and hidden, in turn: wall time of the process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS, MEGABYTES, HYDRA_SECONDS = 0.2, 10.0, 0.1  # the targets

IMPORT_VERL = """
import json, os, sys, time

def now():
    pages = int(open("/proc/self/statm").read().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"wall s": time.perf_counter(), "CPU s": time.process_time(), "MB": memory, "modules": len(sys.modules)}

def since(begin):
    return {key: value - begin[key] for key, value in now().items()}

begin = now()
import verl
found = {"import verl": since(begin)}
if os.environ["VERL_USE_EXTERNAL_PLUGINS"] == "none":
    begin = now()
    import sspo_verl.plugin.load
    found["plugin"] = since(begin)
print(json.dumps(found))
"""

HYDRA_APP = """
import sys
if sys.argv.pop(1) == "hidden":
    sys.modules["hydra_plugins"] = None
import hydra

@hydra.main(config_path=None, version_base=None)
def main(config):
    pass

main()
print("hydra_plugins.sspo_verl" in sys.modules)
"""


def python(*arguments: str, folder: str, **environment: str) -> tuple[str, float]:
    """(last line printed by a fresh interpreter, seconds it took)."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip().splitlines()[-1], time.perf_counter() - begin


def median_and_range(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def verdict(value: float, target: float, unit: str) -> str:
    return f"{value:.3f} {unit}, target under {target:g}: {'reached' if value < target else 'MISSED'}"


def import_verl(repetitions: int, folder: str) -> None:
    rows: dict[str, list[dict[str, float]]] = {"on": [], "off": [], "plugin": []}
    for repetition in range(repetitions + 1):
        for state, plugins in (("off", "none"), ("on", "auto")):
            line, _ = python("-c", IMPORT_VERL, folder=folder, VERL_USE_EXTERNAL_PLUGINS=plugins)
            found = json.loads(line)
            if repetition:  # the first round fills the file cache
                rows[state].append(found["import verl"])
                if "plugin" in found:
                    rows["plugin"].append(found["plugin"])
    units = list(rows["on"][0])
    print("| `import verl`, median (range) | " + " | ".join(units) + " |\n|---|" + "---|" * len(units))
    for state, name in (("off", "plugin off"), ("on", "plugin on"), ("plugin", "the plugin alone, after it")):
        print(
            f"| {name} | " + " | ".join(median_and_range([row[unit] for row in rows[state]]) for unit in units) + " |"
        )
    medians = {s: {u: statistics.median(row[u] for row in rows[s]) for u in units} for s in rows}
    ratio = medians["on"]["CPU s"] / medians["off"]["CPU s"]
    print(f"\nOn over off: {ratio:.3f} of the CPU time.")
    print("The plugin alone: " + verdict(medians["plugin"]["wall s"], SECONDS, "s"))
    print("The plugin alone: " + verdict(medians["plugin"]["MB"], MEGABYTES, "MB"))


def hydra_app(repetitions: int, folder: str) -> None:
    Path(folder, "app.py").write_text(HYDRA_APP)
    seconds: dict[str, list[float]] = {"in sight": [], "hidden": []}
    for repetition in range(repetitions + 1):
        for state in seconds:
            line, took = python("app.py", state, "hydra.run.dir=.", "hydra.output_subdir=null", folder=folder)
            assert line == str(state == "in sight")
            if repetition:
                seconds[state].append(took)
    print("\n| a Hydra application that does nothing | wall s of the process, median (range) |\n|---|---|")
    for state in ("hidden", "in sight"):
        print(f"| our Hydra plugin {state} | {median_and_range(seconds[state])} |")
    added = [seen - hidden for seen, hidden in zip(seconds["in sight"], seconds["hidden"], strict=True)]
    print("\nAdded, median of the pairs: " + verdict(statistics.median(added), HYDRA_SECONDS, "s"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verl", type=int, default=5, help="pairs of processes that import verl")
    parser.add_argument("--hydra", type=int, default=20, help="pairs of Hydra applications")
    arguments = parser.parse_args()
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("verl", "torch", "hydra-core"))
    print(f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores; "
          f"{arguments.verl} and {arguments.hydra} pairs, after one that is not counted\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if arguments.verl:
            import_verl(arguments.verl, folder)
        if arguments.hydra:
            hydra_app(arguments.hydra, folder)
