"""The platform "cpu" in verl's platform registry."""

import contextlib
import types

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from sspo_verl.plugin.cpu.accelerator import has_accelerator_support


class _CpuDevice(types.ModuleType):
    """Stand-in for `torch.cuda` in verl: `torch.cpu`, plus the memory and random state calls that it lacks.

    Compares equal to `torch.cpu`, because verl skips what a CPU cannot do if `get_torch_device() == torch.cpu`.
    """

    def __getattr__(self, name):
        return getattr(torch.cpu, name)

    def __eq__(self, other):
        return other is self or other is torch.cpu

    __hash__ = object.__hash__

    @staticmethod
    def mem_get_info(device=None):
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    @staticmethod
    def get_device_name(device=None):
        return "CPU"

    @staticmethod
    def manual_seed(seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(device=None):
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state, device=None):
        torch.set_rng_state(state)

    @staticmethod
    def _no_bytes(device=None):
        return 0

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = _no_bytes

    @staticmethod
    def _nothing(*args, **kwargs):
        return None

    empty_cache = ipc_collect = reset_peak_memory_stats = set_per_process_memory_fraction = _nothing


class _CpuDeviceId(str):
    """Device id of the CPU. verl uses a device id both as a device (`x.to(id)`) and in f"{device_name}:{id}". A number
    would mean CUDA, so this is the string "cpu", which formats as 0."""

    def __format__(self, _spec):
        return "0"


_device = _CpuDevice("sspo_verl.plugin.cpu.device")


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One machine's CPU. Registered last, so verl's detection only reaches it if there is no accelerator."""

    @property
    def device_name(self):
        return "cpu"

    @property
    def vendor_name(self):
        return "cpu"

    @property
    def device_module(self):
        return _device

    def is_available(self):
        return True

    def is_platform_available(self, use_smi_check=False):
        return not has_accelerator_support()

    def current_device(self):  # pyright: ignore[reportIncompatibleMethodOverride]  see _CpuDeviceId
        return _CpuDeviceId("cpu")

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    def manual_seed_all(self, seed):
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg):  # pyright: ignore[reportIncompatibleMethodOverride]  verl annotates it as None
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        # vLLM's replica asks Ray for its accelerator ids, and Ray only lists accelerators that it knows: so the devices
        # pose as GPUs, as many as ray_kwargs.ray_init.num_gpus says.
        return "GPU"

    def ray_noset_envvars(self):
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self):
        return False  # send weights to vLLM through shared memory and a socket instead of CUDA IPC

    def cudart(self):
        return None
