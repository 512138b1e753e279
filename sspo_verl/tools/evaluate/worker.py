"""Worker process that runs vLLM: reads a job, and writes each response as a JSON line to a pipe when it finishes.

    python -m sspo_verl.tools.evaluate.worker JOB.json PIPE

One model per process: when it exits, all its memory is freed; if it crashes, the caller has an exit code and a log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sspo_verl.tools.runs.prctl import end_with_parent

CPU_SEQUENCES = 64  # concurrent sequences: as many as are useful for a few cores
CPU_BLOCK = 128  # vLLM allocates its cache in blocks of this many tokens
FLOAT32 = 4


def main() -> None:
    end_with_parent(signal.SIGKILL)  # leaves no process if the caller is killed
    job = json.loads(Path(sys.argv[1]).read_text())
    pipe = int(sys.argv[2])
    os.set_inheritable(pipe, False)
    with open(pipe, "w", encoding="utf-8") as out:
        for line in responses(job):
            out.write(json.dumps(line) + "\n")
            out.flush()


def responses(job: dict[str, Any]):
    """Yields {"loaded": true}, then {"prompt", "sample", "output", "tokens", "finished"} in the order they finish."""
    engine = make_engine(job)
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    yield {"loaded": True}
    for number, (prompt, _, seed) in enumerate(job["requests"]):
        parameters = SamplingParams(
            temperature=job["temperature"],
            top_p=job["top_p"],
            max_tokens=job["max_tokens"],
            seed=seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine.add_request(str(number), {"prompt_token_ids": job["prompts"][prompt]}, parameters)
    while engine.has_unfinished_requests():
        for done in engine.step():
            if not done.finished:
                continue
            prompt, sample, _ = job["requests"][int(done.request_id)]
            (output,) = done.outputs
            yield {
                "prompt": prompt,
                "sample": sample,
                "output": output.text,
                "tokens": len(output.token_ids),
                "finished": output.finish_reason != "length",
            }


def make_engine(job: dict[str, Any]) -> Any:
    from sspo_verl.plugin.cpu.accelerator import has_accelerator_support

    options: dict[str, Any] = {}
    if not has_accelerator_support():
        from sspo_verl.plugin.cpu.vllm_version import answer_for_vllm

        answer_for_vllm()  # before vLLM is imported: this determines its platform
        cache = cpu_cache_bytes(Path(job["model"]), job["length"])
        options = {"enforce_eager": True, "max_num_seqs": CPU_SEQUENCES, "kv_cache_memory_bytes": cache}
    from vllm import LLM

    return LLM(
        model=job["model"],
        dtype=job["dtype"],
        max_model_len=job["length"],
        seed=0,
        **options,
    ).llm_engine


def cpu_cache_bytes(model: Path, length: int) -> int:
    """Cache size for CPU_SEQUENCES sequences of maximum length, but at most half of the free memory."""
    import psutil

    from sspo_verl.tools.evaluate.models import text_config

    config = text_config(model)
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    per_token = 2 * FLOAT32 * config["num_hidden_layers"] * kv_heads * head_dim
    return int(min(per_token * (length + CPU_BLOCK) * CPU_SEQUENCES, psutil.virtual_memory().available / 2))


if __name__ == "__main__":
    main()
