"""Probe script: checks a segmenter's invariances. Run by its path: NOTES SEGMENTER [MODEL]; see probe.py for NOTES."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def tokenizer_of(model: str | None):
    if model is None:
        from sspo_verl.tools.quickstart.tokenizer import build

        return build()
    from sspo_verl.plugin.tokenizer import load_tokenizer

    return load_tokenizer(Path(model))


def look(notes, cut, tokenizer) -> None:
    from sspo_verl.tools.doctor.invariances import broken, random_batch, text_batch
    from sspo_verl.tools.doctor.tokenizer_probe import TEXTS

    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS.values()]
    batches = {f"random tokens ({seed})": random_batch(len(tokenizer), seed) for seed in range(3)}
    batches["the texts"] = text_batch(encoded)
    for name, problem in broken(cut, batches):
        notes.take(name, lambda problem=problem: {"problem": problem})


def make(spec: str, tokenizer):
    from sspo_verl.segmenters import segmenter_of
    from sspo_verl.tools.segmenter_option import settings_of

    return segmenter_of(tokenizer, settings_of(spec))


def main(notes_path: str, spec: str, model: str | None = None) -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))  # the sspo_verl that this file belongs to
    notes = runpy.run_path(str(Path(__file__).with_name("probe.py")))["Notes"](notes_path)
    try:
        tokenizer = tokenizer_of(model)
        cut = make(spec, tokenizer)
    except Exception as error:
        notes.fail("segmenter", error)
        return
    look(notes, cut, tokenizer)


if __name__ == "__main__":
    main(*sys.argv[1:])
