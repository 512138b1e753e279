"""Probe script: tests SSPO's segmentation with a tokenizer. Run by its path: NOTES MODEL; see probe.py for NOTES."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

TEXTS = {
    "single line breaks": "First, 3 + 4 = 7.\nThen 7 * 2 = 14.\nThe answer is 14.",
    "empty lines": "We add them.\n\nThe sum is 9.\n\n\nSo the answer is 9.",
    "carriage returns": "first line\r\nsecond line\r\n\r\nthird line\r\n",
    "indentation": "Steps:\n  - one\n    - one a\n\t- two\n        deep",
    "code": 'def f(x):\n    if x > 0:\n        return {"a": [x]}\n    // done\n    return None;\n\n\nprint(f(3))\n',
    "braces and comments": "int f() {\n  return g();\n}\n\n// next\n/* more */\nstruct s {\n};\n// end",
    "Chinese": "设 x 为未知数。\n则 2x + 3 = 7,\n\n所以 x = 2。\n答案是 2。",
    "LaTeX": "\\begin{align*}\n  x &= \\frac{1}{2} \\\\\n  y &\\le \\sqrt{3}\n\\end{align*}\n\\[\n\\boxed{7}\n\\]",
    "a table": "| a | b |\n|---|---|\n| 1 | 2 |\n\nDone.",
    "line break at the end": "one line\nand another\n",
    "line break at the start": "\n\nFirst words.\nMore words.",
    "blank lines with spaces": "above\n   \n \t \nbelow  \n  last",
    "no line break": "All of it on one line.",
}


def load(path: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)


def vocabulary(tokenizer, flags_of_tokens) -> dict:
    """Number and kinds of tokens that contain a line break."""
    from sspo_verl.segments import BLANK, ENDS_LINE

    table = flags_of_tokens.tolist()
    with_break = [token for token, flags in enumerate(table) if flags & ENDS_LINE]
    beyond = text_after_break(tokenizer, with_break)
    return {
        "class": type(tokenizer).__name__,
        "size": len(tokenizer),
        "line breaks": len(with_break),
        "blank": sum(bool(table[token] & BLANK) for token in with_break),
        "beyond": len(beyond),
        "examples": [decode(tokenizer, [token]) for token in beyond[:3]],
    }


def text_after_break(tokenizer, tokens: list[int]) -> list[int]:
    """Tokens that have text after their line break."""
    texts = [decode(tokenizer, [token]).partition("\n") for token in tokens]
    return [token for token, (_, line_break, rest) in zip(tokens, texts, strict=True) if line_break and rest.strip()]


def round_trip(tokenizer, table, text: str) -> dict:
    """Compare the segments of a text's tokens with those of the text itself.

    lost: line breaks that are lost by encoding and decoding. differ: segment ends in only one of the two, once each is
    moved past the indentation after it; indented: whether they differ before that. explained: the tokens include one
    with text after its line break, which moves a cut.
    """
    import torch

    from sspo_verl.segments import segment_ids
    from sspo_verl.tools.doctor.cut_text import segment_ends

    tokens = tokenizer.encode(text, add_special_tokens=False)
    row = torch.tensor([tokens], dtype=torch.int64)
    ids = segment_ids(row, torch.ones_like(row), table)[0].tolist()
    ends = [i + 1 for i in range(len(ids)) if i + 1 == len(ids) or ids[i + 1] != ids[i]]
    # Compared in the decoded text: some tokenizers drop a space at its start.
    back = decode(tokenizer, tokens)
    by_table = {len(decode(tokenizer, tokens[:end])) for end in ends}
    by_text = set(segment_ends(back))
    return {
        "segments": len(by_text),
        "lost": text.count("\n") - back.count("\n"),
        "differ": len(past_indentation(back, by_table) ^ past_indentation(back, by_text)),
        "indented": by_table != by_text,
        "explained": bool(text_after_break(tokenizer, tokens)),
    }


def past_indentation(text: str, ends: set[int]) -> set[int]:
    """The ends, each after the spaces and tabs that follow it in the text."""
    return {len(text) - len(text[end:].lstrip(" \t")) for end in ends}


def decode(tokenizer, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def look(notes, tokenizer) -> None:
    from sspo_verl.segments import line_break_table

    try:
        table = line_break_table(tokenizer)
    except ValueError as error:
        notes.fail("vocabulary", error)
        return
    notes.take("vocabulary", lambda: vocabulary(tokenizer, table))
    for name, text in TEXTS.items():
        notes.take(name, lambda text=text: round_trip(tokenizer, table, text))


def main(notes_path: str, model: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))  # the sspo_verl that this file belongs to
    notes = runpy.run_path(str(Path(__file__).with_name("probe.py")))["Notes"](notes_path)
    try:
        tokenizer = load(model)
    except Exception as error:
        notes.fail("tokenizer", error)
        return
    look(notes, tokenizer)


if __name__ == "__main__":
    main(*sys.argv[1:])
