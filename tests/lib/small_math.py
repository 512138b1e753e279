"""Small data and model for a recipe of mathematics: data as `sspo data` writes it, a model of Qwen2's architecture.

The model is untrained but for one thing: it ends its responses with a boxed digit, any of four. So some responses are
right, and the recipe's own reward tells them apart.
"""

import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from click.testing import CliRunner
from starting_model import IGNORE, Settings, few_threads, learning_rate_at, make_optimizers
from torch.nn.functional import cross_entropy

from sspo_verl.tools.data.command import command
from sspo_verl.tools.quickstart import model as small
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

# The published files, where they are at hand (tests/tools/test_data_real.py); else rows made here, in the same layouts.
PUBLISHED = Path(os.environ.get("SSPO_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
EVALUATED = ("aime24", "amc", "math500", "minerva", "olympiadbench")
DIGITS = "1234"
CONTEXT = 4096  # as Qwen2.5-Math has
PROMPT_TOKENS, RESPONSE_TOKENS = 280, 40  # a token is a byte; a response has 34
TRAIN_ROWS, EVAL_ROWS = 16, 2
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make(folder: Path) -> Path:
    """FOLDER/data and FOLDER/model."""
    train = make_data(folder / "data")
    make_model(folder / "model", train)
    return folder


# Data


def make_data(out: Path) -> list[list[dict]]:
    """train.parquet and eval/*.parquet, of short problems. Returns the messages of the training problems."""
    source = PUBLISHED if (PUBLISHED / "math" / "train.parquet").exists() else _write_sources(out.parent / "source")
    run = CliRunner()
    for arguments in (
        ["math", "--levels", "3-5", "--source", next((source / "math").glob("train.*")), "--out", out],
        ["eval", "--source", source, "--sets", ",".join(EVALUATED), "--out", out / "eval"],
    ):
        done = run.invoke(command, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    train = _keep_short(out / "train.parquet", TRAIN_ROWS, answers=DIGITS)
    for name in EVALUATED:
        _keep_short(out / "eval" / f"{name}.parquet", EVAL_ROWS)
    return [row["prompt"] for row in train]


def _keep_short(file: Path, count: int, answers: str | None = None) -> list[dict]:
    """Leave the first `count` rows whose prompts fit, with one of these answers, in the file."""
    table = pq.read_table(file)
    rows = table.to_pylist()
    tokenizer = make_tokenizer()
    kept = [
        index
        for index, row in enumerate(rows)
        if (answers is None or row["reward_model"]["ground_truth"] in tuple(answers))
        and sum(len(message["content"]) for message in row["prompt"]) < PROMPT_TOKENS
        and len(_encode(tokenizer, row["prompt"])) <= PROMPT_TOKENS
    ][:count]
    assert len(kept) == count, f"{file} has {len(kept)} short rows"
    pq.write_table(table.take(pa.array(kept)), file)
    return [rows[index] for index in kept]


def _write_sources(folder: Path) -> Path:
    """Rows in the layouts of the published files, for where those are not."""
    problems = [(f"Find $x$ if $x+{n}={n + digit}$.", str(digit)) for n in range(5, 9) for digit in range(1, 5)]
    write = {
        "math/train": [
            {"problem": p, "solution": rf"So $x=\boxed{{{a}}}$.", "level": f"Level {3 + i % 3}", "type": "Algebra"}
            for i, (p, a) in enumerate(problems)
        ]
    }
    write |= {
        f"eval/{name}": [{"problem": f"{name}: what is ${i}+1$?", "answer": str(i + 1)} for i in range(EVAL_ROWS)]
        for name in EVALUATED
    }
    for name, rows in write.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# Model


def make_tokenizer():
    tokenizer = byte_tokenizer.build()
    tokenizer.model_max_length = CONTEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _encode(tokenizer, messages: list[dict]) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def make_model(folder: Path, prompts: list[list[dict]], steps: int = 60, seed: int = 0) -> float:
    """Returns the loss it ended with."""
    tokenizer = make_tokenizer()
    settings = Settings(steps=steps, lr_warm_up_steps=5)
    model = small.new_model(tokenizer, small.Architecture(layers=2), seed).train()
    model.config.max_position_embeddings = CONTEXT
    optimizers = make_optimizers(model, settings)
    rng = random.Random(seed)
    loss = torch.tensor(0.0)
    with few_threads():
        for step in range(steps):
            rows = [_encode(tokenizer, rng.choice(prompts)) for _ in range(8)]
            loss = _loss(model, tokenizer, rows, [_response(tokenizer, rng) for _ in rows])
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, settings)
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    small.save(model.eval(), tokenizer, folder)
    return loss.item()


def _response(tokenizer, rng: random.Random) -> list[int]:
    text = f"We add.\nThe answer is\n\\boxed{{{rng.choice(DIGITS)}}}"
    return [*tokenizer.encode(text), tokenizer.eos_token_id]


def _loss(model, tokenizer, prompts: list[list[int]], responses: list[list[int]]) -> torch.Tensor:
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORE)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        labels[row, len(prompt) : len(prompt) + len(response)] = torch.tensor(response)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
