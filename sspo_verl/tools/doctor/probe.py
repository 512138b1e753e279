"""Probe script: runs in a fresh process and records what it finds. Run by its path, and imports nothing of ours at the
top: a broken sspo_verl must not prevent the checks.

    python -c "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')" probe.py NOTES driver
    ...                                                                                      NOTES ray
    ...                                                                                      NOTES vllm
    ...                                                                                      NOTES seams

Each step adds a line of JSON to the file NOTES: {"step", "value"} or {"step", "error", "where"}. So results from before
a crash are kept.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

VERLS_GROUP = "verl.plugins"
VLLMS_GROUP = "vllm.general_plugins"
OWN = "sspo_verl"


class Notes:
    def __init__(self, path: str | None = None):
        self.path = path
        self.found: list[dict] = []

    def take(self, step: str, look: Callable[[], object]) -> None:
        try:
            self.add({"step": step, "value": look()})
        except (Exception, SystemExit) as error:  # verl or vLLM may well call sys.exit
            self.fail(step, error)

    def fail(self, step: str, error: BaseException) -> None:
        self.add({"step": step, **describe(error)})

    def add(self, note: dict) -> None:
        self.found.append(note)
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(json.dumps(note) + "\n")


def describe(error: BaseException) -> dict:
    """An error in one line with its cause, and the innermost file location in the cause's traceback."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = one_line(error) if cause is error else f"{one_line(error)}; caused by {one_line(cause)}"
    frames = traceback.extract_tb(cause.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if "importlib" not in frame.filename]
    return {"error": text, "where": places[-1] if places else ""}


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


# The plugin, in the driver and in a Ray worker


def import_verl() -> dict:
    """Import verl and capture its DEBUG log, the only place where it reports that a plugin failed to load."""
    failures: list[dict] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg.startswith("Failed to load plugin") and isinstance(record.args, tuple):
                plugin, error, *_ = record.args
                if isinstance(error, BaseException):
                    failures.append({"plugin": str(plugin), **describe(error)})

    logger, listener = logging.getLogger("verl"), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # otherwise all of verl's DEBUG output would be printed
    try:
        import verl
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
    return {"version": verl.__version__, "file": verl.__file__, "failures": failures}


def installations() -> dict:
    """Entry points that claim to be ours, and the metadata of every installation of this package on the path."""
    from importlib.metadata import distributions, entry_points

    points = [
        {"group": group, "name": point.name, "value": point.value, "of": point.dist.name if point.dist else "?"}
        for group in (VERLS_GROUP, VLLMS_GROUP)
        for point in entry_points(group=group)
    ]
    records = [
        f"{found.version} in {found.locate_file('')}"
        for found in distributions()
        if (found.metadata["Name"] or "").lower().replace("-", "_") == OWN
    ]
    return {"points": points, "records": list(dict.fromkeys(records))}


def own_package() -> str:
    """Where this process would import this package from. The import itself is left to verl."""
    spec = importlib.util.find_spec(OWN)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No package named {OWN!r}")
    return str(Path(spec.submodule_search_locations[0]).resolve())


def registered() -> dict:
    """Where the functions that verl calls by the name sspo come from; None if there are none."""
    from verl.trainer.ppo import core_algos

    return {
        "policy loss": _file(core_algos.POLICY_LOSS_REGISTRY.get("sspo")),
        "advantage estimator": _file(core_algos.ADV_ESTIMATOR_REGISTRY.get("sspo")),
    }


def wrapped() -> dict:
    """Where verl's ppo_loss, which must be wrapped, comes from; verl's own file if it is not wrapped."""
    from verl.workers.utils import losses

    return {"ppo_loss": _file(losses.ppo_loss)}


def _file(function) -> str | None:
    # The code's own file: a wrapper has the name and the module of what it wraps.
    code = getattr(function, "__code__", None)
    return None if function is None else code.co_filename if code else repr(function)


def look_at_plugin(notes: Notes) -> Notes:
    notes.take("package", own_package)
    notes.take("verl", import_verl)
    notes.take("registered", registered)
    notes.take("wrapped", wrapped)
    return notes


# The four processes


def driver(notes: Notes) -> None:
    notes.take("installations", installations)
    look_at_plugin(notes)
    notes.take("machine", machine)
    notes.take("composed", composed)


def machine() -> dict:
    import torch
    from verl.plugin.platform import get_platform

    accelerator = torch.accelerator.current_accelerator()
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append({"name": properties.name, "bytes": properties.total_memory})
    platform = get_platform()
    return {
        "torch": torch.__version__,
        "built for": None if accelerator is None else accelerator.type,
        "devices": devices,
        "count": torch.accelerator.device_count(),
        "platform": platform.device_name,
        "platform of": type(platform).__module__,
        "cores": len(os.sched_getaffinity(0)),
    }


def composed() -> dict:
    """verl's own config with algorithm=sspo, as `python -m verl.trainer.main_ppo algorithm=sspo` composes it."""
    from hydra import compose, initialize_config_module
    from hydra.utils import instantiate

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["algorithm=sspo"])
    policy_loss = config.actor_rollout_ref.actor.policy_loss
    settings = instantiate(policy_loss, _convert_="partial")
    return {
        "adv_estimator": config.algorithm.adv_estimator,
        "loss_mode": policy_loss.loss_mode,
        "settings": f"{type(settings).__module__}.{type(settings).__name__}",
    }


def ray_worker(notes: Notes) -> None:
    import ray

    probe = __file__
    directory = str(Path(sys.argv[1]).parent / "ray")

    def look() -> list[dict]:
        namespace = runpy.run_path(probe)
        return namespace["look_at_plugin"](namespace["Notes"]()).found

    def start() -> str:
        # Our own Ray, whatever cluster the environment names; with almost no object memory.
        ray.init(
            address="local",
            num_cpus=1,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
            _temp_dir=directory,
        )
        return ray.__version__

    notes.take("ray", start)
    if "error" in notes.found[-1]:
        return
    try:
        for note in ray.get(ray.remote(look).remote()):
            notes.add(note)
    except Exception as error:
        notes.fail("worker", error)
    ray.shutdown()


def vllm(notes: Notes) -> None:
    """Load the plugin like each vLLM process does: first the plugin, then the model."""
    notes.take("package", own_package)
    notes.take("vllm", import_vllm)
    notes.take("general plugins", load_general_plugins)


def import_vllm() -> str:
    import torch  # noqa: F401  vLLM needs its libraries loaded
    from vllm.model_executor.layers import utils  # noqa: F401  the module that calls vLLM's compiled operators

    return importlib.import_module("vllm").__version__


def load_general_plugins() -> dict:
    import torch
    from vllm import plugins
    from vllm.model_executor.layers import utils

    failures: list[dict] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                failures.append({"plugin": str(record.args), **describe(record.exc_info[1])})

    plugins.logger.addHandler(Listener())
    plugins.load_general_plugins()
    return {
        "needed": torch.accelerator.current_accelerator() is None,
        "linear": _file(getattr(utils, "dispatch_cpu_unquantized_gemm", None)),
        "failures": failures,
    }


def seams(notes: Notes) -> None:
    notes.take("seams", try_seams)


def try_seams() -> dict:
    """{hook into verl: None, or why it does not fit}."""
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # a hook that does not fit would fail the import
    import verl  # noqa: F401

    from sspo_verl.plugin import seams

    return seams.seams()


if __name__ == "__main__":
    path, which = sys.argv[1:]
    {"driver": driver, "ray": ray_worker, "vllm": vllm, "seams": seams}[which](Notes(path))
