"""SmolLM2-135M-Instruct in the study: transformers' model, at the recipe's temperature, made by scripts/smollm2.py."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.study.model import Samples, sample_tokens
from benchmarks.study.text import Text
from sspo_verl.segments import line_break_table

FOLDER = Path(os.environ.get("SSPO_MODEL", Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"))
TEMPERATURE = 0.6  # that of recipes/smollm2_135m.yaml: at 1 hardly any response is right at first
ROWS = 64  # rows sampled at once


class SmolLM2(nn.Module):
    """Policy softmax(logits / TEMPERATURE), in float32.

    Prompts share their worked examples, so each pass computes the common prefix once, with its gradient: the same
    log-probabilities and gradients as with complete rows, in a third of the time (tests/study/test_smollm2.py).
    """

    def __init__(self, weights: dict[str, Tensor] | None = None):
        super().__init__()
        self.net = _new_net()
        self.net.load_state_dict(_start() if weights is None else weights)

    def weights_copy(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self.net.state_dict().items()}

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """See `model.Qwen2.log_probs`."""
        common = shared_columns(prompts)
        cache = self._of_common(prompts, common)
        rest = torch.cat((prompts[:, common:], responses), 1)[:, :-1]
        logits = self.net(rest, past_key_values=cache, logits_to_keep=responses.shape[1]).logits
        table = (logits / TEMPERATURE).log_softmax(-1)
        return table.gather(2, responses[..., None])[..., 0], table

    @torch.no_grad()
    def sample(self, prompts: Tensor, uniform: Tensor | None, end: int, limit: int) -> Samples:
        """See `model.Qwen2.sample`; greedy sampling ignores the temperature."""
        parts = [
            self._sample(rows, None if uniform is None else uniform[:, begin : begin + ROWS], end, limit)
            for begin, rows in zip(range(0, len(prompts), ROWS), prompts.split(ROWS), strict=True)
        ]
        longest = max(part.tokens.shape[1] for part in parts)
        wide = [[nn.functional.pad(x, (0, longest - x.shape[1])) for x in part] for part in parts]
        return Samples(*(torch.cat(columns) for columns in zip(*wide, strict=True)))

    def _sample(self, prompts: Tensor, uniform: Tensor | None, end: int, limit: int) -> Samples:
        common = shared_columns(prompts)
        cache = self._of_common(prompts, common)

        def following(ids: Tensor, place: int) -> Tensor:
            return (self.net(ids, past_key_values=cache).logits[:, -1] / TEMPERATURE).log_softmax(-1)

        return sample_tokens(following, prompts[:, common:], uniform, end, limit)

    def _of_common(self, prompts: Tensor, common: int):
        """KV cache of the columns that all prompts share, expanded to each of them."""
        from transformers import DynamicCache

        if not common:
            return DynamicCache()
        cache = self.net(prompts[:1, :common], use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(prompts))
        return cache


def shared_columns(prompts: Tensor) -> int:
    """Number of leading columns in which all rows agree; without the last column, whose logits each row needs."""
    same = (prompts == prompts[:1]).all(0).long().cumprod(0).sum()
    return min(int(same), prompts.shape[1] - 1)


def chat(messages: list[dict[str, str]]) -> str:
    """Messages in the model's chat template, up to where the answer begins."""
    return tokenizer().apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@functools.cache
def text() -> Text:
    found = tokenizer()
    return Text(
        encode=lambda written: found(written, add_special_tokens=False).input_ids,
        decode=lambda tokens: found.decode(tokens, skip_special_tokens=True),
        start=(),  # the template includes it
        end=found.eos_token_id,
        table=line_break_table(found),
    )


@functools.cache
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_folder(), local_files_only=True)


def _new_net() -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(_folder(), local_files_only=True)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()


@functools.cache
def _start() -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(_folder(), dtype=torch.float32, local_files_only=True)
    return {name: weight.to(torch.get_default_device()) for name, weight in net.state_dict().items()}


def _folder() -> Path:
    if not FOLDER.is_dir():
        raise FileNotFoundError(f"{FOLDER} is missing: python scripts/smollm2.py makes it; SSPO_MODEL names another.")
    return FOLDER
