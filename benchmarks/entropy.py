"""Entropy of the trained policy: python benchmarks/entropy.py [--device cuda] [--tokens 1024] [--vocabulary 151936]

On bf16 logits [tokens, vocabulary], in turn: one read of the logits (their sum in float32), `token_entropy` as is and
without chunks, and verl's own function (forward only, and with the gradient, for which it keeps intermediate tensors).
Prints the median time, its ratio to one read, and the peak memory beyond logits and gradient: the allocator's on CUDA;
on a CPU the process's own peak, each in a fresh process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time

import torch

from sspo_verl.entropy import token_entropy

TARGET_BYTES, TARGET_RATIO = 256e6, 1.5
WAYS = (
    "one read",
    "token_entropy",
    "token_entropy, one piece",
    "verl, no gradient",
    "verl, in pieces",
    "verl, gradient",
)


def run(way: str, logits: torch.Tensor) -> None:
    from verl.utils import torch_functional as verls

    with torch.set_grad_enabled(way == "verl, gradient"):
        if way == "one read":
            logits.sum(dim=-1, dtype=torch.float32)
        elif way == "token_entropy":
            token_entropy(logits)
        elif way == "token_entropy, one piece":
            token_entropy(logits, chunk_bytes=4 * logits.numel())
        elif way == "verl, in pieces":
            verls.entropy_from_logits_with_chunking(logits)
        elif way == "verl, no gradient":
            verls.entropy_from_logits(logits)
        else:
            verls.entropy_from_logits(logits.requires_grad_()).sum().backward()
            logits.grad = None


def make_logits(tokens: int, vocabulary: int, device: str) -> torch.Tensor:
    torch.manual_seed(0)
    logits = torch.empty(tokens, vocabulary, dtype=torch.bfloat16, device=device)
    for part in logits.split(64):
        part.normal_(std=3)
    return logits


def seconds(way: str, logits: torch.Tensor) -> float:
    synchronize = torch.cuda.synchronize if logits.is_cuda else lambda: None
    synchronize()
    began = time.perf_counter()
    run(way, logits)
    synchronize()
    return time.perf_counter() - began


def peak_bytes(way: str, arguments: argparse.Namespace) -> int:
    """Peak memory beyond the logits (and their gradient)."""
    if arguments.device.startswith("cuda"):
        logits = make_logits(arguments.tokens, arguments.vocabulary, arguments.device)
        run(way, logits[:8])
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(way, logits)
        return torch.cuda.max_memory_allocated() - before
    command = [sys.executable, __file__, "--peak", way, "--tokens", str(arguments.tokens)]
    command += ["--vocabulary", str(arguments.vocabulary)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def own_peak(way: str, tokens: int, vocabulary: int) -> int:
    """Peak memory of this process; Linux keeps the peak since the file below was last written."""
    logits = make_logits(tokens, vocabulary, "cpu")
    run(way, logits[:8].clone())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    run(way, logits)
    return memory("VmHWM") - before


def memory(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, help="default: 32768 on CUDA, 1024 on a CPU")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_cuda = arguments.device.startswith("cuda")
    arguments.tokens = arguments.tokens or (32_768 if on_cuda else 1024)
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(own_peak(arguments.peak, arguments.tokens, arguments.vocabulary))
        raise SystemExit
    device = torch.cuda.get_device_name() if on_cuda else f"{os.cpu_count()} cores, {arguments.threads} threads"
    versions = f"torch {torch.__version__}, verl {importlib.metadata.version('verl')}"
    print(f"Python {platform.python_version()}, {versions}; {device}; bf16 logits "
          f"[{arguments.tokens}, {arguments.vocabulary}], {arguments.repetitions} rounds\n")  # fmt: skip
    logits = make_logits(arguments.tokens, arguments.vocabulary, arguments.device)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for repetition in range(arguments.repetitions + 1):
        for way in WAYS:
            took = seconds(way, logits)
            if repetition:
                times[way].append(took)
    del logits
    read = statistics.median(times["one read"])
    print("| way | median ms | of one read | peak MB beyond the logits |\n|---|---|---|---|")
    peaks = {}
    for way in WAYS:
        peaks[way] = peak_bytes(way, arguments)
        median = statistics.median(times[way])
        print(f"| {way} | {1000 * median:.1f} | {median / read:.2f} | {peaks[way] / 1e6:.0f} |", flush=True)
    ratio, peak = statistics.median(times["token_entropy"]) / read, peaks["token_entropy"]
    print(f"\ntoken_entropy: {peak / 1e6:.0f} MB, target {TARGET_BYTES / 1e6:.0f}: "
          f"{'reached' if peak < TARGET_BYTES else 'MISSED'}; {ratio:.2f} reads, target {TARGET_RATIO} on a GPU"
          + (f": {'reached' if ratio < TARGET_RATIO else 'MISSED'}" if on_cuda else ""))  # fmt: skip
