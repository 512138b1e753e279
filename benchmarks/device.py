"""The method on a device, with only torch: python -m benchmarks.device [--device cuda] [--size 64,4096]

For each segmenter and each setting beyond the paper: whether two runs, and a batch split in two, give the same bits;
how far loss and gradient are from the CPU's; the time and memory of segment ids, loss and its backward pass, compared
with a clipped token loss in plain torch. Exits with an error if bits differ.
"""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import sys

import torch

from benchmarks.loss import SETTINGS, peak_bytes
from benchmarks.segments import in_turn
from sspo_verl.loss import sspo_token_loss
from sspo_verl.segmenters import segmenter_of
from sspo_verl.tools.segmenter_option import settings_of

BAND = {
    "clip_low": 0.7,
    "clip_high": 1.3,
    "clip_low_tight": 0.8,
    "alpha": 0.3,
    "entropy_low": 0.5,
    "entropy_high": 1.0,
    "entropy_clip": True,
}
# {name: (segmenter, settings of the loss in addition to the paper's)}
CASES = {
    name: (name, {}) for name in ("line_break", "sentence", "fixed:32", "entropy:0.1", "turn", "response", "token")
}
CASES |= {name: ("line_break", settings) for name, settings in SETTINGS.items()}
TEXTS = (".\n", "\n", ". ", " 3", "a", " b", "c", " $", "D", " e", "f", "?", "g", " h", "i", "1", ".", "j", " k", "l")


class Tokenizer:
    """A tokenizer in which one token in twenty ends a line, or a sentence."""

    all_special_ids = ()

    def __len__(self):
        return len(TEXTS)

    def decode(self, ids):
        return "".join(TEXTS[i] for i in ids)


def make_batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    mask = torch.arange(length) < (length * (0.5 + 0.5 * torch.rand(rows, 1, generator=g)))
    mask &= torch.rand(rows, length, generator=g) > 0.001  # holes: the segmenter `turn` cuts there
    old = -3 * torch.rand(rows, length, generator=g)
    return {
        "token_ids": torch.randint(len(TEXTS), (rows, length), generator=g),
        "response_mask": mask.long(),
        "old_log_prob": old,
        "log_prob": old + 0.3 * torch.randn(rows, length, generator=g),
        "advantages": torch.randn(rows, 1, generator=g).expand(rows, length).contiguous(),
        "entropy": 2 * torch.rand(rows, length, generator=g),
    }


def step(batch: dict[str, torch.Tensor], cut, settings: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Segment ids, loss and gradient."""
    log_prob = batch["log_prob"].detach().requires_grad_()
    ids = cut(batch["token_ids"], batch["response_mask"], batch["entropy"])
    rest = {name: batch[name] for name in ("old_log_prob", "advantages", "response_mask", "entropy")}
    loss = sspo_token_loss(log_prob=log_prob, segment_ids=ids, **rest, **BAND, **settings)
    loss.sum().backward()
    return ids, loss.detach(), log_prob.grad


def token_step(batch: dict[str, torch.Tensor]) -> None:
    """A minimal clipped per-token loss, as a baseline."""
    log_prob = batch["log_prob"].detach().requires_grad_()
    ratio = (log_prob - batch["old_log_prob"]).exp()
    loss = torch.maximum(-ratio * batch["advantages"], -ratio.clamp(0.8, 1.2) * batch["advantages"])
    (loss * batch["response_mask"]).sum().backward()


def cost(run, batch: dict[str, torch.Tensor], args: argparse.Namespace) -> str:
    """Median milliseconds, and MiB."""
    (taken,) = in_turn({"": functools.partial(run, batch)}, args.seconds, args.device).values()
    return f"{statistics.median(taken):.2f} | {peak_bytes(run, batch) / 2**20:.1f}"


def same_bits(one, other) -> bool:
    return all(
        torch.equal(*(x if x.dtype == torch.int64 else x.contiguous().view(torch.int32) for x in pair))
        for pair in zip(one, other, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", default="64,4096", help="rows,length")
    parser.add_argument("--seconds", type=float, default=2.0, help="per row of the table")
    args = parser.parse_args()
    rows, length = map(int, args.size.split(","))
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    print(f"python {platform.python_version()}, torch {torch.__version__}, {name}, [{rows}, {length}]")
    print(
        "| what | same bits twice | and in two halves | largest distance from the CPU | ms | MiB |\n" + "|---" * 6 + "|"
    )
    on_cpu = make_batch(rows, length)
    batch = {name: values.to(args.device) for name, values in on_cpu.items()}
    print(f"| one clipped token loss | | | | {cost(token_step, batch, args)} |")
    differ = []
    for name, (segmenter, settings) in CASES.items():
        cut = segmenter_of(Tokenizer(), settings_of(segmenter), torch.device(args.device))
        cut_on_cpu = segmenter_of(Tokenizer(), settings_of(segmenter), torch.device("cpu"))
        run = functools.partial(step, cut=cut, settings=settings)
        found = run(batch)
        twice = same_bits(found, run(batch))
        half = rows // 2
        parts = [
            run({name: values[part] for name, values in batch.items()}) for part in (slice(half), slice(half, None))
        ]
        halves = same_bits(found, [torch.cat(pair) for pair in zip(*parts, strict=True)])
        ids, *values = step(on_cpu, cut_on_cpu, settings)
        far = max(float((x.cpu() - y).abs().max()) for x, y in zip(found[1:], values, strict=True))
        if not (twice and halves and torch.equal(ids, found[0].cpu())):
            differ.append(name)
        print(f"| {name} | {twice} | {halves} | {far:.1e} | {cost(run, batch, args)} |", flush=True)
    if differ:
        print(f"bits differ, or segment ids are not the CPU's: {', '.join(differ)}")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
