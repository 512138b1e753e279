"""The starting model: a small Qwen2 that knows the format of a worked solution and gets some answers right.

Its weights are in start.safetensors; scripts/starting_model.py made them, from scratch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

WEIGHTS = Path(__file__).with_name("start.safetensors")


@dataclass(frozen=True)
class Architecture:
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 3
    heads: int = 4  # head_dim 32, the smallest that vLLM's CPU attention supports
    init_std: float = 0.04


def new_model(
    tokenizer: PreTrainedTokenizerFast, architecture: Architecture | None = None, seed: int = 0
) -> Qwen2ForCausalLM:
    """A model in float32 with random weights."""
    architecture = architecture or Architecture()
    ids = tokenizer.get_vocab()
    end, pad = ids[byte_tokenizer.END], ids[byte_tokenizer.PAD]
    config = Qwen2Config(
        vocab_size=max(ids.values()) + 1,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=byte_tokenizer.MAX_LENGTH,
        initializer_range=architecture.init_std,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).float()
    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=end, pad_token_id=pad)
    return model


def starting_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The starting model in float32; the file is float16, half the size."""
    model = new_model(tokenizer)
    weights = {name: weight.float() for name, weight in load_file(WEIGHTS).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert missing == ["lm_head.weight"], missing  # tied to the embedding
    return model.eval()


def record() -> dict:
    """The record of the weights: how they were made, and what the model solved."""
    with safe_open(WEIGHTS, framework="pt") as file:
        return json.loads(file.metadata()["record"])


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save model and tokenizer in Hugging Face's layout."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
