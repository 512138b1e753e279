"""Cost of SSPO's loss compared with verl's own: python benchmarks/loss.py [--threads 1 2] [--device cpu]

Forward and backward of SSPO (arXiv 2511.04256) with everything that it does in a micro-batch of verl's actor: segment
ids from token ids, bounds, loss, verl's reduction, all metrics and their copy to the host. Compared with verl's
`vanilla` and `gspo` on the same tensors, each with the metrics that verl computes for it. All three are called like in
verl's `ppo_loss`, in turn; the figures are medians, and medians of the ratios of consecutive runs. --segmenter and
--settings also measure SSPO with another segmenter, and with each of its settings beyond the paper.

Memory is the peak total size of live tensors, above what was live before (torch's allocator on CUDA, the profiler's
allocation events on CPU).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import asdict
from importlib.metadata import version
from types import SimpleNamespace

import torch

SIZES = ((16, 1024), (64, 2048), (128, 4096))
VOCABULARY = 151_643  # Qwen's
# SSPO's settings beyond the paper (docs/bands.md).
SETTINGS = {
    "length": {"clip_length_exponent": -0.5},
    "product": {"ratio_length_exponent": 1.0, "ratio_cap": 5.0},
    "tv": {"clip_statistic": "tv", "clip_divergence": 0.15},
    "binary_kl": {"clip_statistic": "binary_kl", "clip_divergence": 0.05},
}
LOSSES = ("sspo", "vanilla", "gspo")


class Tokenizer:
    """A tokenizer as large as Qwen's: each token is a letter, except for one that ends a line."""

    all_special_ids = ()

    def __len__(self):
        return VOCABULARY

    def decode(self, ids):
        return "a\n" if ids[0] == 0 else "a"


TOKENIZER = Tokenizer()


def make_batch(rows: int, length: int, tokens_per_segment: float, device: str) -> dict[str, torch.Tensor]:
    """Responses of random lengths up to `length`, padded like verl's. tokens_per_segment: inf for one segment each."""
    g = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(*shape, generator=g)

    lengths = (length * (0.5 + 0.5 * uniform(rows, 1))).long()
    lengths[0] = length
    mask = torch.arange(length) < lengths
    breaks = uniform(rows, length) < 1 / tokens_per_segment
    tokens = torch.where(breaks, 0, torch.randint(1, VOCABULARY, (rows, length), generator=g))
    old = -2 * uniform(rows, length) ** 3
    batch = {
        "responses": tokens,
        "response_mask": mask,
        "old_log_prob": old,
        "log_prob": old + 0.3 * torch.randn(rows, length, generator=g),
        "advantages": torch.randn(rows, 1, generator=g).expand(rows, length).contiguous(),
        "entropy": 2 * uniform(rows, length) ** 2,
    }
    for name in ("old_log_prob", "log_prob", "advantages", "entropy"):
        batch[name] = batch[name] * mask
    return {name: values.to(device) for name, values in batch.items()}


def loss_of(name: str, diagnostics: bool = True):
    """A function of a batch that runs verl's loss `name`, or "sspo VARIANT", forward and backward."""
    import verl  # noqa: F401  loads the plugin
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig
    from verl.workers.utils import losses

    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.plugin import actor
    from sspo_verl.tools.segmenter_option import settings_of

    name, _, variant = name.partition(" ")
    ours = SETTINGS[variant] if variant in SETTINGS else asdict(settings_of(variant or "line_break"))
    sspo = SSPOPolicyLossConfig(diagnostics=diagnostics, **ours) if name == "sspo" else None
    settings = sspo or PolicyLossConfig(loss_mode=name)
    config = FSDPActorConfig(rollout_n=1, ppo_micro_batch_size_per_gpu=1, policy_loss=settings)
    config.model_config = SimpleNamespace(tokenizer=TOKENIZER)
    policy_loss = losses.get_policy_loss_fn(name)

    def run(batch):
        rows = batch["response_mask"].shape[0]
        config.global_batch_info.update(
            dp_size=1, batch_num_tokens=batch["tokens"], global_batch_size=rows, loss_scale_factor=None
        )
        batch["log_prob"].grad = None
        token = actor._micro_batch.set(actor._MicroBatch(batch, {}))
        try:
            loss, metrics = policy_loss(
                old_log_prob=batch["old_log_prob"],
                log_prob=batch["log_prob"],
                advantages=batch["advantages"],
                response_mask=batch["response_mask"],
                loss_agg_mode="seq-mean-token-mean",
                config=config,
                rollout_is_weights=None,
            )
            metrics["actor/pg_loss"] = loss.item()  # verl also reads it here
        finally:
            actor._micro_batch.reset(token)
        loss.backward()
        return loss

    return run


def seconds(run, batch) -> float:
    start = time.perf_counter()
    run(batch)
    if batch["log_prob"].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(run, batch) -> int:
    """Peak memory of `run` above what was allocated before, including the gradient."""
    run(batch)
    batch["log_prob"].grad = None
    if batch["log_prob"].is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(batch)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        run(batch)
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def measure(rows: int, length: int, args, tokens_per_segment: float) -> None:
    batch = make_batch(rows, length, tokens_per_segment, args.device)
    batch["tokens"] = int(batch["response_mask"].sum())
    batch["log_prob"].requires_grad_()
    runs = {name: loss_of(name) for name in args.losses}
    for run in runs.values():
        for _ in range(3):
            run(batch)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    deadline = time.perf_counter() + args.seconds
    while time.perf_counter() < deadline or len(taken["sspo"]) < 15:
        for name, run in runs.items():
            taken[name].append(seconds(run, batch))
    cells = [f"[{rows},{length}]", f"{tokens_per_segment:g}", str(torch.get_num_threads())]
    cells += [f"{statistics.median(taken[name]) * 1e3:.2f}" for name in args.losses]
    for mine, other in _pairs(args.losses):
        ratios = [ours / its for ours, its in zip(taken[mine], taken[other], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f}")
    peaks = {name: peak_bytes(run, batch) / 2**20 for name, run in runs.items()}
    cells += [f"{peaks[name]:.1f}" for name in args.losses]
    cells += [f"{peaks[mine] / peaks[other]:.2f}" for mine, other in _pairs(args.losses)]
    print("| " + " | ".join(cells) + f" | {len(taken['sspo'])} |", flush=True)


def _pairs(losses: list[str]) -> list[tuple[str, str]]:
    """Pairs to compare: SSPO with verl's losses, and each of its variants with the default SSPO."""
    return [("sspo", other) for other in LOSSES[1:]] + [(name, "sspo") for name in losses if name not in LOSSES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads; a table row for each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=[f"{b},{t}" for b, t in SIZES], help="rows,length")
    parser.add_argument(
        "--tokens-per-segment", type=float, nargs="+", default=[20.0], help="1: a segment per token; inf: GSPO's"
    )
    parser.add_argument("--segmenter", nargs="+", default=[], help="besides line_break, named as in `sspo analyze`")
    parser.add_argument("--settings", action="store_true", help="also each of SSPO's settings beyond the paper")
    parser.add_argument("--seconds", type=float, default=2.0, help="per row of the table")
    args = parser.parse_args()
    variants = [*args.segmenter, *(SETTINGS if args.settings else ())]
    args.losses = [*LOSSES, *(f"sspo {name}" for name in variants)]

    print(
        f"python {platform.python_version()}, torch {torch.__version__}, verl {version('verl')}, {args.device}", end=""
    )
    print(f", {torch.cuda.get_device_name()}" if args.device.startswith("cuda") else f", {os.cpu_count()} cores")
    columns = ["size", "tokens per segment", "threads", *(f"{name} ms" for name in args.losses)]
    columns += [f"{mine} / {other}" for mine, other in _pairs(args.losses)]
    columns += [*(f"{name} MiB" for name in args.losses), *(f"{mine} / {other}" for mine, other in _pairs(args.losses))]
    columns += ["runs"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for size in args.sizes:
        for tokens_per_segment in args.tokens_per_segment:
            for threads in args.threads:
                torch.set_num_threads(threads)
                measure(*map(int, size.split(",")), args, tokens_per_segment)


if __name__ == "__main__":
    main()
