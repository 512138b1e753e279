"""Ranks of verl's actor, each its own process: verl's `TrainingWorker` on an engine without a model.

The engine takes log-probabilities and entropies from the data. What is verl's is called and not repeated: the cut
into micro-batches, `ppo_loss`, how metrics are collected over micro-batches and gathered over ranks. As a program: one
process imports verl, and its ranks are forks of it.

    python tests/lib/actor_rank.py FOLDER
"""

import contextlib
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from verl.utils import tensordict_utils as tu
from verl.workers import engine_workers
from verl.workers.engine.utils import postprocess_batch_func, prepare_micro_batches
from verl_batch import PROMPT_LENGTH, TOKENIZER, actor_config, micro_batch, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.plugin import driver

WORLDS = (1, 2, 4, 8)  # numbers of ranks
# dump: sspo with the segments of each row. quantile: sspo with thresholds that are shares of each batch.
SETTINGS = {
    "sspo": {},
    "vanilla": {"loss_mode": "vanilla"},
    "gspo": {"loss_mode": "gspo"},
    "dump": {"dump_segments": 99},
    "quantile": {"entropy_thresholds": "quantile", "entropy_low": 0.3, "entropy_high": 0.8},
}
MODES = tuple(SETTINGS)
MAX_TOKENS = 70  # in a micro-batch, prompts and padding included: 2 to 5 rows
# Two updates in a step; the rows of each, and where its two mini-batches, of unequal size, are cut. Each rank gets one
# row in `world`.
UPDATES = ((24, 8), (40, 24))
TEXTS = (
    "one\ntwo\n\nthree and more\nfour",
    "no line break at all",
    "a\nb\nc\nd\ne\n",
    "\n\n   q\n",
    "1+2=3\nso 3\n\n\n",
    "completely masked\n",
    "x",
    "a long line, longer than all others\nend",
)


def rows_of(update: int) -> dict[str, list[torch.Tensor]]:
    """The responses of one update, for all ranks."""
    count, _ = UPDATES[update]
    rows = responses(seed=10 + update, texts=[TEXTS[i % len(TEXTS)] for i in range(count)])
    # Far enough from the old policy for SSPO to clip.
    rows["log_prob"] = [old + 3 * (new - old) for old, new in zip(rows["old_log_prob"], rows["log_prob"], strict=True)]
    rows["response_mask"][5][:] = 0
    return rows


class Engine:
    def __init__(self, rank: int, world: int):
        self.rank, self.world = rank, world
        self.micro_batches: list[int] = []  # the rows of each

    def get_data_parallel_rank(self):
        return self.rank

    def get_data_parallel_size(self):
        return self.world

    def get_data_parallel_group(self):
        return dist.group.WORLD

    def is_mp_src_rank_with_outputs(self):
        return True

    def train_mode(self, **_):
        return contextlib.nullcontext()

    def lr_scheduler_step(self):
        return 1e-6

    def train_batch(self, data, loss_function):
        tokens = data["response_mask"].values().sum()
        dist.all_reduce(tokens)
        tu.assign_non_tensor(data, batch_num_tokens=tokens.item(), dp_size=self.world)
        parts, indices = prepare_micro_batches(data, dp_group=self.get_data_parallel_group())
        outputs = []
        for part in parts:
            self.micro_batches.append(len(part))
            model_output = {"log_probs": part["model_log_probs"].requires_grad_(), "entropy": part["model_entropy"]}
            loss, metrics = loss_function(model_output=model_output, data=part)
            loss.backward()
            outputs.append({"model_output": {}, "loss": loss.item(), "metrics": metrics})
        output = postprocess_batch_func(outputs, indices, data)
        output["metrics"]["grad_norm"] = 1.0
        return output


class Worker(engine_workers.TrainingWorker):
    """verl's worker, without what builds its model."""

    def __new__(cls, *_):
        return object.__new__(cls)

    def __init__(self, engine, loss_fn):
        self.engine = engine
        self.loss_fn = loss_fn
        self.model_config = {}
        self.engine_config = SimpleNamespace(
            forward_only=False,
            use_dynamic_bsz=True,
            max_token_len_per_gpu=MAX_TOKENS,
            micro_batch_size_per_gpu=None,
            use_fused_kernels=False,
        )
        self.device_name = "cpu"
        self.flops_counter = SimpleNamespace(estimate_flops=lambda *_, **__: (1.0, 1.0))
        self.profiler = SimpleNamespace(step=lambda: None, rank=0, check_enable=lambda: False)


class Queue:
    """Stands in for verl's TransferQueue client: all responses of an update, by their place in it."""

    def __init__(self, update: int):
        self.rows = rows_of(update)

    def kv_batch_get(self, keys, partition_id, select_fields):
        picked = [int(key.rpartition("-")[2]) for key in keys]
        return {name: tu.nested_tensor_from_tensor_list([self.rows[name][i] for i in picked]) for name in select_fields}


def batch_of(update: int, world: int) -> SimpleNamespace:
    """The driver's batch: the rows as it sends them to the ranks, one after the other, and one more that only pads."""
    count, _ = UPDATES[update]
    keys = [f"{update}-{i}" for rank in range(world) for i in range(rank, count, world)]
    tags = [{} for _ in keys] + [{"is_padding": True}]
    return SimpleNamespace(keys=[*keys, f"{update}-padding"], tags=tags, partition_id="train", extra_info={})


def data_of(update: int, rank: int, world: int, settings: SSPOPolicyLossConfig):
    """This rank's share of an update: every `world`-th row, in the order of all."""
    rows = rows_of(update)
    pick = list(range(rank, len(rows["responses"]), world))
    data, output = micro_batch(rows, pick)
    data["model_log_probs"] = output["log_probs"].detach()
    data["model_entropy"] = output["entropy"]
    prompt = torch.full((PROMPT_LENGTH,), 65)
    data["input_ids"] = tu.nested_tensor_from_tensor_list([torch.cat([prompt, rows["responses"][i]]) for i in pick])
    for name in ("dp_size", "batch_num_tokens"):
        tu.pop(data, name)
    data["uid"] = [f"{update}-{i}" for i in pick]
    data["session_id"] = torch.zeros(len(pick), dtype=torch.int64)
    # What the driver put in the batch's extra_info comes to the worker so.
    batch = batch_of(update, world)
    driver.Report(settings, TOKENIZER, updates=1).add_thresholds(Queue(update), batch)
    tu.assign_non_tensor(data, **batch.extra_info)
    # verl's own cut knows only mini-batches of one size: Worker's iterator, below, has two sizes.
    tu.assign_non_tensor(data, mini_batch_size=len(pick) // 2 * world)
    return data


def unequal_mini_batches(data, world: int):
    cut = {count // world: first // world for count, first in UPDATES}[len(data)]
    assert 2 * cut != len(data)
    for rows in (range(cut), range(cut, len(data))):
        yield tu.index_select_tensor_dict(data, list(rows))


def run(rank: int, world: int, folder: str) -> None:
    """One rank: writes {mode: ([what train_mini_batch returned, for each update], [rows of each micro-batch])}."""
    dist.init_process_group("gloo", f"file://{folder}/store{world}", rank=rank, world_size=world)
    engine_workers.tu.make_iterator = lambda data, **_: unequal_mini_batches(data, world)
    found = {}
    for mode in MODES:
        engine = Engine(rank, world)
        settings = SSPOPolicyLossConfig(**SETTINGS[mode])
        config = actor_config(settings)
        worker = Worker(engine, functools.partial(engine_workers.ppo_loss, config=config))
        outputs = [worker.train_mini_batch(data_of(update, rank, world, settings)) for update in range(len(UPDATES))]
        found[mode] = (outputs, engine.micro_batches)
    Path(folder, f"{world}-{rank}").write_bytes(pickle.dumps(found))  # so it goes through Ray
    dist.destroy_process_group()


def train(folder: Path) -> dict[int, list[dict]]:
    """{number of ranks: what each rank wrote}."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        world: [pickle.loads(Path(folder, f"{world}-{rank}").read_bytes()) for rank in range(world)] for world in WORLDS
    }


if __name__ == "__main__":
    for number in WORLDS:
        mp.start_processes(run, args=(number, sys.argv[1]), nprocs=number, start_method="fork")
