"""The starting model: a small Qwen2, taught from scratch by a writer who makes mistakes, with a fixed seed.

Supervised learning for about a minute on two cores leaves a model that knows the form of a worked solution and gets
some answers right: a middling start, so that reinforcement has something to gain and something to build on.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from sspo_verl.quickstart import arithmetic
from sspo_verl.quickstart import tokenizer as byte_tokenizer

IGNORE = -100  # torch's cross_entropy skips this label
LONGEST_SOLUTION = 48
# Two threads are a third faster on two idle cores, and were seen to be eight times slower on busy ones.
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
    """Everything that the model's weights depend on, besides the task and torch itself."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 3
    heads: int = 4  # head_dim 32, the smallest that vLLM's CPU attention takes
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 4e-3
    lr_warm_up_steps: int = 30
    lr_floor: float = 0.05  # share of the learning rate at which the cosine ends
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    init_std: float = 0.04
    seed: int = 0


def new_model(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Qwen2ForCausalLM:
    ids = tokenizer.get_vocab()
    end, pad = ids[byte_tokenizer.END], ids[byte_tokenizer.PAD]
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=byte_tokenizer.MAX_LENGTH,
        initializer_range=settings.init_std,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="float32",
    )
    torch.manual_seed(settings.seed)
    model = Qwen2ForCausalLM(config).float()
    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=end, pad_token_id=pad)
    return model


def encode_prompts(tokenizer: PreTrainedTokenizerFast, problems: list[arithmetic.Terms]) -> torch.Tensor:
    """Prompts as verl will build them, through the chat template; all of one length."""
    return torch.tensor(
        [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": arithmetic.prompt(p)}], add_generation_prompt=True, return_dict=False
            )
            for p in problems
        ]
    )


def make_batch(tokenizer: PreTrainedTokenizerFast, problems: list[arithmetic.Terms], rng: random.Random):
    """(input_ids, labels) of worked solutions; prompts and padding carry no loss."""
    prompts = encode_prompts(tokenizer, problems)
    solutions = [[*tokenizer.encode(arithmetic.solution(p, rng)), tokenizer.eos_token_id] for p in problems]
    longest = max(map(len, solutions))
    padded = torch.tensor([s + [tokenizer.pad_token_id] * (longest - len(s)) for s in solutions])
    labels = torch.tensor([s + [IGNORE] * (longest - len(s)) for s in solutions])
    return torch.cat((prompts, padded), 1), torch.cat((torch.full_like(prompts, IGNORE), labels), 1)


def make_optimizers(model: Qwen2ForCausalLM, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices learns this in half of AdamW's time; AdamW for embeddings, norms and biases."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() == 2 and "embed" not in name else rest).append(parameter)
    lr, decay = settings.learning_rate, settings.weight_decay
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw", ns_steps=4),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=decay),
    ]


def learning_rate_at(step: int, settings: Settings) -> float:
    """A short linear rise, then half a cosine down to the floor."""
    rise = min(1.0, (step + 1) / settings.lr_warm_up_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * rise * (settings.lr_floor + (1 - settings.lr_floor) * cosine)


@few_threads()
def train(
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Qwen2ForCausalLM:
    """Same settings, same machine: same bits. `on_step(done, loss)` is called after every step."""
    model = new_model(tokenizer, settings).train()
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
    """Share of problems solved, greedily or sampled at temperature 1 (from torch's generator as it stands)."""
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


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
