"""Cost that SSPO adds to GRPO's step at 7B on 8 to 512 GPUs, on paper: python benchmarks/scale.py [--device cuda]

Measured here: the kernels that the loss launches in addition to `vanilla`'s, the advantage of a response, and the
gathering of a step's counts. For the latter, every rank's micro-batches are counted, and verl's own function gathers
the records of all ranks, in one process: pickled for each rank, and unpickled for the one that is measured. Derived:
GRPO's own step (benchmarks/gpu_hours.py) and everything that follows from the number of GPUs. Assumed: the constants at
the top.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import sys
import time
from dataclasses import dataclass
from unittest import mock

import gpu_hours
import loss
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sspo_verl.tools.runs.recipe import composed

# Assumptions
LAUNCH_SECONDS = 6e-6  # between two small kernels launched from Python
TOKENS_PER_SEGMENT = 25
RECIPE, GPU = "qwen2_5_math_7b", gpu_hours.GPUS[1]
FIXED_BATCH, GROWING_BATCH = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64)  # nodes of 8 GPUs
# torch operations that launch nothing: they only return a view of a tensor.
VIEWS = {"view", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias", "t", "transpose", "permute"}
VIEWS |= {"as_strided", "split", "split_with_sizes", "unbind", "_unsafe_view", "empty", "empty_like", "lift_fresh"}


class Launches(TorchDispatchMode):
    """Counts the operations that would launch a kernel."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def launches(name: str, device: str) -> int:
    batch = loss.make_batch(9, 1024, TOKENS_PER_SEGMENT, device)
    batch["log_prob"].requires_grad_()
    batch["tokens"] = int(batch["response_mask"].sum())
    run = loss.loss_of(name)
    run(batch)
    with Launches() as counted:
        run(batch)
    return counted.count


def median_seconds(function, repetitions: int = 15) -> float:
    """Median CPU seconds, which do not include other load on the machine."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


@dataclass(frozen=True)
class Travels:
    """Cost of the counts of a step: bytes that a rank sends per mini-batch, and that the driver gets in total; seconds
    of gathering, on the first rank and on another; and seconds on the driver until it has the metrics."""

    bytes_rank: int
    bytes_driver: int
    seconds_first_rank: float
    seconds_other_rank: float
    seconds_driver: float


def mini_batch(seed: int, micro_batches: list[int], response_tokens: int, diagnostics: dict) -> dict:
    """Our metrics on a rank after a mini-batch. micro_batches: number of responses in each."""
    from verl.utils.py_functional import append_to_dict

    from sspo_verl.metrics.counts import observe
    from sspo_verl.metrics.travel import FoldedCounts, Share
    from sspo_verl.plugin.actor import COUNTS, SHARES

    metrics: dict = {}
    for number, rows in enumerate(micro_batches):
        g = torch.Generator().manual_seed(1000 * seed + number)
        shape = (rows, response_tokens)
        old = -torch.rand(shape, generator=g)
        counts, _ = observe(
            old_log_prob=old,
            log_prob=old + 0.1 * torch.randn(shape, generator=g),
            advantages=torch.randn(rows, 1, generator=g).expand(shape),
            response_mask=torch.ones(shape),
            segment_ids=(torch.arange(response_tokens) // TOKENS_PER_SEGMENT).expand(shape),
            entropy=3 * torch.rand(shape, generator=g) ** 2,
            **diagnostics,
        ).fetch()
        shares = (Share((counts.clipped, counts.valid)), Share(counts.log_ratio))
        append_to_dict(metrics, {COUNTS: FoldedCounts(counts), **dict(zip(SHARES, shares, strict=True))})
    return metrics


def travels(ranks: int, mini_batches: int, micro_batches: list[int], response_tokens: int) -> Travels:
    """Measure the counts of a step in which each rank has `mini_batches` mini-batches of `micro_batches`."""
    import verl  # noqa: F401  loads the plugin
    from verl.utils import torch_functional
    from verl.utils.py_functional import append_to_dict

    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.plugin.actor import COUNTS
    from sspo_verl.plugin.driver import Report

    settings = SSPOPolicyLossConfig()
    records = [mini_batch(rank, micro_batches, response_tokens, settings.bounds()) for rank in range(ranks)]
    sent: list[bytes] = []  # what each rank passes to verl's gathering

    def send(found: list, data: dict, group=None) -> None:
        sent.append(pickle.dumps(data))
        found[:] = [data]

    def receive(found: list, data: dict, group=None) -> None:
        found[:] = map(pickle.loads, sent)

    def gather(rank: int, exchange) -> dict:
        with (
            mock.patch("torch.distributed.get_world_size", return_value=ranks),
            mock.patch("torch.distributed.get_rank", return_value=rank),
            mock.patch("torch.distributed.all_gather_object", exchange),
        ):
            return torch_functional.allgather_dict_into_dict(data=records[rank], group=None)

    for rank in range(ranks):
        gather(rank, send)

    def of_step(rank: int) -> bytes:
        metrics: dict = {}
        for _ in range(mini_batches):
            append_to_dict(metrics, gather(rank, receive))
        return pickle.dumps(metrics)

    results = [of_step(0), *[of_step(1)] * (ranks - 1)]
    nothing = len(pickle.dumps({}))

    def on_driver():
        report = Report(settings, None, mini_batches)
        for update in map(pickle.loads, results):  # verl unpickles the results of all ranks
            if COUNTS in update:
                report.take(update[COUNTS].value, [])
        assert report.finish(1)["sspo/segments_per_response"] == response_tokens / TOKENS_PER_SEGMENT

    return Travels(
        bytes_rank=max(map(len, sent)),
        bytes_driver=sum(len(result) - nothing for result in results),
        seconds_first_rank=mini_batches * median_seconds(lambda: gather(0, receive), 5),
        seconds_other_rank=mini_batches * median_seconds(lambda: gather(1, receive), 5),
        seconds_driver=median_seconds(on_driver),
    )


def advantage_seconds() -> tuple[float, float]:
    """Seconds per response of the advantage on the driver: ours, and verl's grpo."""
    import verl  # noqa: F401  loads the plugin
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    responses, group, length = 1024, 8, 1000
    index = np.repeat([f"prompt-{i}" for i in range(responses // group)], group)
    rewards = torch.zeros(responses, length)
    rewards[:, -1] = (torch.arange(responses) % 3 == 0).float()
    mask = torch.ones(responses, length)
    config = {"norm_adv_by_std_in_grpo": True}

    def of(name: str) -> float:
        estimator = get_adv_estimator_fn(name)
        return (
            median_seconds(
                lambda: estimator(token_level_rewards=rewards, response_mask=mask, index=index, config=config)
            )
            / responses
        )

    return of("sspo"), of("grpo")


def rows(extra_launches: int, advantage: float, grows: bool) -> list[str]:
    lines = []
    tokens = gpu_hours.RESPONSE_TOKENS
    for nodes in GROWING_BATCH if grows else FIXED_BATCH:
        factor = nodes if grows else 1
        base = composed(gpu_hours.RECIPES, RECIPE, [])
        prompts = base.data.train_batch_size * factor
        mini = base.actor_rollout_ref.actor.ppo_mini_batch_size * factor
        config = composed(
            gpu_hours.RECIPES,
            RECIPE,
            [
                f"trainer.nnodes={nodes}",
                f"data.train_batch_size={prompts}",
                f"actor_rollout_ref.actor.ppo_mini_batch_size={mini}",
            ],
        )
        model = gpu_hours.MODELS["Qwen2.5-Math-7B"]
        step = gpu_hours.cost(config, model, GPU, tokens).step
        responses = prompts * config.actor_rollout_ref.rollout.n
        gpus = nodes * config.trainer.n_gpus_per_node
        mini_batches = prompts // mini
        of_an_update = responses // mini_batches // gpus
        fit = config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu // (tokens + gpu_hours.PROMPT_TOKENS)
        micro_batches = [min(fit, of_an_update - begin) for begin in range(0, of_an_update, fit)]
        found = travels(gpus, mini_batches, micro_batches, tokens)
        on_gpu = mini_batches * len(micro_batches) * extra_launches * LAUNCH_SECONDS
        group = responses * advantage
        # If the advantage is faster than verl's, that is not subtracted from the rest.
        more = on_gpu + found.seconds_first_rank + found.seconds_driver + max(group, 0)
        share, nanoseconds = more / step, more * 1e9 / (responses * tokens)
        cells = [str(gpus), f"{responses:,}", f"{step:.1f} s", f"{on_gpu * 1e3:.1f} ms"]
        cells += [f"{found.bytes_rank / 1e3:.1f} kB", f"{found.seconds_first_rank * 1e3:.1f} ms"]
        cells += [f"{found.seconds_other_rank * 1e3:.1f} ms", f"{found.bytes_driver / 1e3:.1f} kB"]
        cells += [f"{found.seconds_driver * 1e3:.1f} ms", f"{group * 1e3:+.1f} ms", f"{nanoseconds:.0f} ns"]
        lines.append(f"| {' | '.join([*cells, f'{100 * share:.2f} %'])} |")
        print(lines[-1], file=sys.stderr)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="device to count the loss's kernels on")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    counted = {name: launches(name, device) for name in ("sspo", "vanilla")}
    ours, verls = advantage_seconds()
    print(f"kernels of a micro-batch: sspo {counted['sspo']}, vanilla {counted['vanilla']} ({device})")
    print(f"advantage of a response: sspo {ours * 1e6:.1f} µs, grpo {verls * 1e6:.1f} µs")
    columns = ("GPUs", "responses a step", "GRPO's step", "loss, metrics", "a rank sends", "first rank", "another rank")
    columns += ("driver gets", "driver", "advantage", "a token", "of the step")
    head = f"| {' | '.join(columns)} |"
    for grows, title in ((False, "The recipe's batch"), (True, "A batch that grows with the GPUs")):
        print(f"\n{title}\n\n{head}\n|{'---|' * len(columns)}")
        print("\n".join(rows(counted["sspo"] - counted["vanilla"], ours - verls, grows)))


if __name__ == "__main__":
    main()
