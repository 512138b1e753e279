"""Where to cut, and how fast: python benchmarks/segments.py [--threads 1 2] [--device cpu] [--model FOLDER]

Builds the table of a byte-level tokenizer with as many tokens as Qwen's (or that of FOLDER), and cuts a million tokens
with it: with a line break at every token, at every 20th, and at none.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from importlib.metadata import version

import torch

from sspo_verl.actor import table_of
from sspo_verl.segments import ENDS_LINE, line_break_table, segment_ids

VOCABULARY = 151_643  # Qwen's


def qwen_like():
    """A byte-level tokenizer of VOCABULARY random tokens; one in 70 has a line break at its end, as in Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    rng = random.Random(0)
    tokens = dict.fromkeys(symbols)
    while len(tokens) < VOCABULARY:
        word = "".join(rng.choices(symbols[:200], k=rng.randint(2, 8)))
        tokens[word + "Ċ" if rng.random() < 1 / 70 else word] = None
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def median_ms(run, seconds: float, device: str) -> float:
    taken = []
    run()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(taken) < 15:
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="256,4096", help="rows,length")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row of the table")
    parser.add_argument("--model", help="folder with a tokenizer; default: one made here")
    args = parser.parse_args()
    print(f"python {platform.python_version()}, torch {torch.__version__}", end=", ")
    print(f"transformers {version('transformers')}, {args.device}, {os.cpu_count()} cores")

    if args.model:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(args.model)
    else:
        tokenizer = qwen_like()
    starts = []
    for _ in range(3):
        start = time.perf_counter()
        table = line_break_table(tokenizer)
        starts.append(f"{time.perf_counter() - start:.2f}")
    found = int((table & ENDS_LINE).sum())
    print(f"table: {len(tokenizer):,} tokens, {found:,} with a line break: {', '.join(starts)} s (three times)")
    device = torch.device(args.device)
    table_of(tokenizer, device)
    start = time.perf_counter()
    table = table_of(tokenizer, device)
    print(f"table, asked for again in the same process: {(time.perf_counter() - start) * 1e6:.0f} microseconds")

    rows, length = map(int, args.size.split(","))
    g = torch.Generator().manual_seed(0)
    text, cut = (torch.nonzero(table.cpu() == flags).flatten() for flags in (0, ENDS_LINE))
    print("| tokens | threads | tokens per segment | segments | ms |\n|---|---|---|---|---|")
    for tokens_per_segment in (1.0, 20.0, float("inf")):
        at = torch.rand(rows, length, generator=g) < 1 / tokens_per_segment
        tokens = torch.where(at, *(of[torch.randint(len(of), (rows, length), generator=g)] for of in (cut, text)))
        mask = torch.arange(length) < (length * (0.5 + 0.5 * torch.rand(rows, 1, generator=g)))
        tokens, mask = tokens.to(device), mask.to(device)
        for threads in args.threads:
            torch.set_num_threads(threads)
            ms = median_ms(lambda tokens=tokens, mask=mask: segment_ids(tokens, mask, table), args.seconds, args.device)
            segments = int((segment_ids(tokens, mask, table).amax(dim=1) + 1).sum())
            print(f"| {rows * length:,} | {threads} | {tokens_per_segment:g} | {segments:,} | {ms:.1f} |", flush=True)


if __name__ == "__main__":
    main()
