"""A tiny model's folder, data in verl's layout, and a generator that takes no time, for the tests of `sspo eval`."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sspo_verl.tools.evaluate.generate import Generated
from sspo_verl.tools.quickstart import model as small
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.tasks import arithmetic


def make_model(folder: Path) -> Path:
    """Untrained: 0.7 million random weights."""
    tokenizer = byte_tokenizer.build()
    small.save(small.new_model(tokenizer), tokenizer, folder)
    return folder


def make_checkpoint(model: Path, folder: Path, ranks: int = 1) -> Path:
    """verl's FSDP checkpoint of that model: shards of plain tensors, config and tokenizer without weights."""
    from safetensors.torch import load_file

    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (actor / "huggingface" / file.name).write_bytes(file.read_bytes())
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for rank in range(ranks):
        torch.save(weights, actor / f"model_world_size_{ranks}_rank_{rank}.pt")
    (actor / "fsdp_config.json").write_text(f'{{"FSDP_version": 2, "world_size": {ranks}}}')
    return folder


def make_data(folder: Path, **sets: int) -> Path:
    """NAME.parquet with so many of the quickstart's problems."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in sets.items():
        rows = [arithmetic.verl_row((1, 2, 3, 1 + index), index, "test") for index in range(count)]
        write_rows(folder / f"{name}.parquet", rows)
    return folder


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


class FakeGenerator:
    """In the place of vLLM: an output that depends on what a response may depend on, and nothing else.

    stop_after: raises after so many responses, as Ctrl-C would.
    """

    def __init__(self, stop_after: int | None = None, batch: int = 3):
        self.stop_after, self.batch = stop_after, batch
        self.generated: list[tuple[str, int, int]] = []
        self.calls = 0

    def __call__(self, model, wanted, sampling, length, platform, log):
        self.calls += 1
        yield []
        for start in range(0, len(wanted), self.batch):
            if self.stop_after is not None and len(self.generated) >= self.stop_after:
                raise KeyboardInterrupt
            part = wanted[start : start + self.batch]
            self.generated += [(*prompt.key, sample) for prompt, sample in part]
            yield [self.one(prompt, sample, sampling.seed) for prompt, sample in part]

    @staticmethod
    def one(prompt, sample: int, seed: int) -> Generated:
        digit = hashlib.sha256(f"{prompt.text}/{sample}/{seed}".encode()).digest()[0] % 4
        total = int(prompt.problem.gold) + (digit == 0)
        text = f"é {digit}\n#### {total}" if digit != 3 else "no idea"
        return Generated(prompt, sample, text, tokens=10 + digit, finished=digit != 3)
