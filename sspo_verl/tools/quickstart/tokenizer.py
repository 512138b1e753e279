"""A byte-level tokenizer: one token per byte and three special tokens, 259 in all."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MAX_LENGTH = 128

# The prompt is a start token and the bare text: the task needs no roles.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
)


def build() -> PreTrainedTokenizerFast:
    """BPE over the 256 byte symbols with no merges.

    transformers loads any tokenizer next to a qwen2 config as Qwen's byte-level one, and verl requires that a line
    break is one token and that `<|im_end|>` exists: this tokenizer works with both.
    """
    alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([PAD, START, END])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
