"""Time of the segmentation: python benchmarks/segments.py [--threads 1 2] [--device cpu] [--model FOLDER]

Builds each segmenter for a byte-level tokenizer with as many tokens as Qwen's (or that of FOLDER), and cuts a million
tokens with it: with a line break at every token, at every 20th, and at none. All segmenters in turn; the ratio to
line_break is the median over consecutive runs.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import statistics
import time
from importlib.metadata import version

import torch

from sspo_verl.plugin.segmenter import segmenter_on
from sspo_verl.segmenters import segmenter_of
from sspo_verl.segments import ENDS_LINE, line_break_table
from sspo_verl.tools.segmenter_option import settings_of

VOCABULARY = 151_643  # Qwen's
SEGMENTERS = ("line_break", "sentence", "turn", "fixed:32", "entropy:0.1", "token", "response", "regex:[;:]")


def qwen_like():
    """A byte-level tokenizer of VOCABULARY random tokens; one in 70 ends with a line break, as in Qwen's."""
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


def in_turn(runs: dict, seconds: float, device: str) -> dict[str, list[float]]:
    """Milliseconds of each run, by name."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(taken[next(iter(runs))]) < 15:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--segmenters", nargs="+", default=SEGMENTERS, help="named as in `sspo analyze --segmenter`")
    parser.add_argument("--max-tokens", type=int, help="segment_max_tokens")
    parser.add_argument("--size", default="256,4096", help="rows,length")
    parser.add_argument("--seconds", type=float, default=1.0, help="per row of the table")
    parser.add_argument("--model", help="folder with a tokenizer; default: one made here")
    args = parser.parse_args()
    print(f"python {platform.python_version()}, torch {torch.__version__}", end=", ")
    print(f"transformers {version('transformers')}, {args.device}, {os.cpu_count()} cores")

    if args.model:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(args.model)
    else:
        tokenizer = qwen_like()
    table, device = line_break_table(tokenizer), torch.device(args.device)
    print(f"{len(tokenizer):,} tokens, {int((table & ENDS_LINE).sum()):,} with a line break")
    cuts = {}
    for name in args.segmenters:
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            cuts[name] = segmenter_of(tokenizer, settings_of(name, args.max_tokens), device)
            starts.append(f"{time.perf_counter() - start:.2f}")
        print(f"made for the vocabulary: {name}: {', '.join(starts)} s (three times)")
    segmenter_on(device, tokenizer, settings_of("line_break"))
    start = time.perf_counter()
    segmenter_on(device, tokenizer, settings_of("line_break"))
    print(f"asked for again in the same process: {(time.perf_counter() - start) * 1e6:.0f} microseconds")

    rows, length = map(int, args.size.split(","))
    g = torch.Generator().manual_seed(0)
    text, cut = (torch.nonzero(table == flags).flatten() for flags in (0, ENDS_LINE))
    print("| tokens | threads | tokens per line | segmenter | segments | ms | / line_break |\n" + "|---" * 7 + "|")
    for tokens_per_segment in (1.0, 20.0, float("inf")):
        at = torch.rand(rows, length, generator=g) < 1 / tokens_per_segment
        tokens = torch.where(at, *(of[torch.randint(len(of), (rows, length), generator=g)] for of in (cut, text)))
        mask = torch.arange(length) < (length * (0.5 + 0.5 * torch.rand(rows, 1, generator=g)))
        batch = [x.to(device) for x in (tokens, mask, torch.rand(rows, length, generator=g))]
        runs = {name: functools.partial(cut_by, *batch) for name, cut_by in cuts.items()}
        for threads in args.threads:
            torch.set_num_threads(threads)
            taken = in_turn(runs, args.seconds * len(runs), args.device)
            first = taken[next(iter(runs))]
            for name, run in runs.items():
                segments = int((run().amax(dim=1) + 1).sum())
                ratio = statistics.median(its / base for its, base in zip(taken[name], first, strict=True))
                cells = f"{rows * length:,} | {threads} | {tokens_per_segment:g} | {name} | {segments:,}"
                print(f"| {cells} | {statistics.median(taken[name]):.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
