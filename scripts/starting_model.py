"""Trains the quickstart's starting model again: python scripts/starting_model.py [--out FILE]

A small Qwen2, trained from scratch on a writer who makes mistakes, with a fixed seed: a minute on a CPU with bfloat16
instructions, which Muon uses, and about four minutes on one without. The default FILE is the one in the package, whose
weights were made by this script. It writes float16, and measures the model in that precision.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.quickstart.model import WEIGHTS, Architecture, new_model
from sspo_verl.tools.tasks import arithmetic

IGNORE = -100  # torch's cross_entropy skips this label
LONGEST_SOLUTION = 48
SAMPLING_SEED = 0
# Two threads are a third faster on two idle cores, but were observed to be eight times slower on busy ones.
THREADS = 1


@contextlib.contextmanager
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Settings:
    """Everything the weights depend on, besides the task, the architecture and torch itself."""

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 4e-3
    lr_warm_up_steps: int = 30
    lr_floor: float = 0.05  # share of the learning rate at which the cosine ends
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0


def encode_prompts(tokenizer: PreTrainedTokenizerFast, problems: list[arithmetic.Terms]) -> torch.Tensor:
    """Prompts as verl will build them, through the chat template; all of the same length."""
    return torch.tensor(
        [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": arithmetic.prompt(p)}], add_generation_prompt=True, return_dict=False
            )
            for p in problems
        ]
    )


def make_batch(tokenizer: PreTrainedTokenizerFast, problems: list[arithmetic.Terms], rng: random.Random):
    """(input_ids, labels) of worked solutions; prompts and padding have no loss."""
    prompts = encode_prompts(tokenizer, problems)
    solutions = [[*tokenizer.encode(arithmetic.solution(p, rng)), tokenizer.eos_token_id] for p in problems]
    longest = max(map(len, solutions))
    padded = torch.tensor([s + [tokenizer.pad_token_id] * (longest - len(s)) for s in solutions])
    labels = torch.tensor([s + [IGNORE] * (longest - len(s)) for s in solutions])
    return torch.cat((prompts, padded), 1), torch.cat((torch.full_like(prompts, IGNORE), labels), 1)


def make_optimizers(model: Qwen2ForCausalLM, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which learns this in half of AdamW's time; AdamW for embeddings, norms and biases."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() == 2 and "embed" not in name else rest).append(parameter)
    lr, decay = settings.learning_rate, settings.weight_decay
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw", ns_steps=4),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=decay),
    ]


def learning_rate_at(step: int, settings: Settings) -> float:
    """Learning rate: a short linear warm-up, then half a cosine down to the floor."""
    rise = min(1.0, (step + 1) / settings.lr_warm_up_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * rise * (settings.lr_floor + (1 - settings.lr_floor) * cosine)


@few_threads()
def train(
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    architecture: Architecture,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Qwen2ForCausalLM:
    """Train the model. Same settings, same machine: same bits. `on_step(done, loss)` is called after every step."""
    model = new_model(tokenizer, architecture, settings.seed).train()
    optimizers = make_optimizers(model, settings)
    rng = random.Random(settings.seed)
    problems = arithmetic.all_problems(held_out=False)
    for step in range(settings.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings)
            optimizer.zero_grad()
        ids, labels = make_batch(tokenizer, rng.choices(problems, k=settings.batch_size), rng)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        on_step(step + 1, loss.item())
    return model.eval()


@few_threads()
@torch.no_grad()
def accuracy(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: list[arithmetic.Terms],
    sample: bool = False,
) -> float:
    """Share of problems solved, greedily or sampled at temperature 1 (with torch's generator in its current state)."""
    prompts = encode_prompts(tokenizer, problems)
    out = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=LONGEST_SOLUTION,
        do_sample=sample,
        **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {}),
    )
    texts = tokenizer.batch_decode(out[:, prompts.shape[1] :], skip_special_tokens=True)
    return sum(arithmetic.is_solved(t, sum(p)) for t, p in zip(texts, problems, strict=True)) / len(problems)


def write(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: Settings, out: Path) -> dict:
    """Round the model to float16, measure it, and write both to `out`; return the record, the file's metadata."""
    model.half().float()
    problems = arithmetic.splits()["test"]
    greedy = accuracy(model, tokenizer, problems)
    torch.manual_seed(SAMPLING_SEED)
    record = {
        "made_by": "scripts/starting_model.py",
        "settings": repr(settings),
        "torch": torch.__version__,
        "greedy_accuracy": greedy,
        "sampled_accuracy": accuracy(model, tokenizer, problems, sample=True),
    }
    weights = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out, metadata={"record": json.dumps(record)})  # a single entry: the order of several would vary
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    out = parser.parse_args().out
    before = out.read_bytes() if out.exists() else b""
    settings, tokenizer = Settings(), byte_tokenizer.build()

    def show(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step}/{settings.steps}, loss {loss:.3f}", flush=True)

    model = train(tokenizer, settings, Architecture(), show)
    for name, value in write(model, tokenizer, settings, out).items():
        print(f"{name}: {value}")
    print(f"{out}: {'the same bits as before' if out.read_bytes() == before else 'written'}")


if __name__ == "__main__":
    main()
