"""Generates the missing responses, with vLLM in a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sspo_verl.tools.evaluate.merge import Failed, tail
from sspo_verl.tools.evaluate.prompts import Prompt
from sspo_verl.tools.evaluate.sampling import Sampling, seed_of
from sspo_verl.tools.runs.environment import CPU_ENVIRONMENT, QUIET_ENVIRONMENT, short_directory

# Runs the engine in the worker itself, not in another process below it.
VLLM_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Generated:
    prompt: Prompt
    sample: int
    output: str
    tokens: int
    finished: bool


def dtype(platform: str) -> str:
    """vLLM's dtype: the one in the model's config on a GPU; float32 on a CPU, which is not faster with less."""
    return "float32" if platform == "cpu" else "auto"


def generate(
    model: Path,
    wanted: list[tuple[Prompt, int]],
    sampling: Sampling,
    length: int,
    platform: str,
    log: Path,
) -> Iterator[list[Generated]]:
    """Generate `wanted`, a list of (prompt, sample). Yields an empty list once the model is loaded, then batches of new
    responses until all are finished. Raises Failed with the end of vLLM's log; leaves no process behind."""
    folder = Path(short_directory())
    (folder / "job.json").write_text(json.dumps(_job(model, wanted, sampling, length, platform)))
    prompts = _distinct(wanted)
    read_end, write_end = os.pipe()
    environment = {
        **(CPU_ENVIRONMENT if platform == "cpu" else {}),
        **os.environ,  # the user's own OMP_NUM_THREADS takes precedence
        **QUIET_ENVIRONMENT,
        **VLLM_ENVIRONMENT,
    }
    command = [sys.executable, "-m", "sspo_verl.tools.evaluate.worker", str(folder / "job.json"), str(write_end)]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own process group, to be killed as one
            pass_fds=(write_end,),
        )
    os.close(write_end)
    arrived = 0
    try:
        with open(read_end, encoding="utf-8") as pipe:
            for lines in _batches(pipe):
                batch = [
                    Generated(prompts[line.pop("prompt")], **line) for line in lines if not line.pop("loaded", False)
                ]
                arrived += len(batch)
                yield batch
        exit_code = child.wait()
        if exit_code != 0 or arrived != len(wanted):
            raise Failed(
                f"vLLM ended with exit code {exit_code} after {arrived} of {len(wanted)} responses.\n{tail(log)}"
            )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # it has nothing to clean up
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _distinct(wanted: list[tuple[Prompt, int]]) -> list[Prompt]:
    return list({prompt.key: prompt for prompt, _ in wanted}.values())


def _job(
    model: Path, wanted: list[tuple[Prompt, int]], sampling: Sampling, length: int, platform: str
) -> dict[str, Any]:
    prompts = _distinct(wanted)
    place = {prompt.key: number for number, prompt in enumerate(prompts)}
    return {
        "model": str(model.resolve()),
        "dtype": dtype(platform),
        "length": length,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "prompts": [prompt.ids for prompt in prompts],
        "requests": [
            (place[prompt.key], sample, None if sampling.greedy else seed_of(sampling.seed, *prompt.key, sample))
            for prompt, sample in wanted
        ],
    }


def _batches(pipe: IO[str]) -> Iterator[list[dict[str, Any]]]:
    """Batches of parsed lines that arrived since the last batch. A thread drains the pipe, so that the worker never
    waits for the scoring. An incomplete last line is from a worker that died, and is dropped."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def empty() -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    thread = threading.Thread(target=empty, daemon=True)
    thread.start()
    ended = False
    while not ended:
        batch = [lines.get()]
        while not lines.empty():
            batch.append(lines.get())
        ended = batch[-1] is None
        if parsed := [json.loads(line) for line in batch if line is not None and line.endswith("\n")]:
            yield parsed
    thread.join()
