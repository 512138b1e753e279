"""Checks that SSPO's segmentation works with a model's tokenizer."""

from __future__ import annotations

from sspo_verl.tools.doctor.check import FAILED, OK, SKIPPED, WARNING, Check
from sspo_verl.tools.doctor.processes import Notes
from sspo_verl.tools.doctor.tokenizer_probe import TEXTS

LOADS, BREAKS, CUTS = "tokenizer", "tokenizer: line breaks", "tokenizer: round trip"


def check_tokenizer(notes: Notes | None) -> list[Check]:
    if notes is None:
        return [Check(LOADS, SKIPPED, "no model given (--model PATH)")]
    if "tokenizer" in notes.lines or not notes.lines:
        fix = (
            "Give the folder with the model's tokenizer (tokenizer.json or the like), as "
            "actor_rollout_ref.model.path names it. One that needs its own code cannot be checked."
        )
        return [Check(LOADS, FAILED, f"does not load: {notes.why_not('tokenizer')}", fix)]
    vocabulary = notes.value("vocabulary")
    if vocabulary is None:
        fix = "SSPO cannot cut this model's text: train with algorithm=gspo, or use another model."
        return [Check(BREAKS, FAILED, notes.why_not("vocabulary"), fix)]
    return [_line_breaks(vocabulary), _round_trip(notes)]


def _line_breaks(found: dict) -> Check:
    text = (
        f"{found['class']}: {found['line breaks']:,} of {found['size']:,} tokens hold a line break; "
        f"{found['blank']:,} of these are blank, {found['beyond']:,} have text after it"
    )
    if not found["beyond"]:
        return Check(BREAKS, OK, text)
    examples = ", ".join(repr(example) for example in found["examples"])
    fix = "Nothing to fix: such a token still ends its segment, so its last characters stay with the line before."
    return Check(BREAKS, WARNING, f"{text}, such as {examples}", fix)


def _round_trip(notes: Notes) -> Check:
    segments, wrong, moved, indented = 0, [], [], False
    for name in TEXTS:
        found = notes.value(name)
        if found is None:
            wrong.append(f"{name}: {notes.why_not(name)}")
            continue
        segments += found["segments"]
        indented |= found["indented"]
        if found["lost"]:
            wrong.append(f"{name}: {found['lost']} line breaks fewer after encoding and decoding")
        elif found["differ"]:
            (moved if found["explained"] else wrong).append(f"{name}: {found['differ']} ends of segments differ")
    if wrong:
        fix = (
            "SSPO would not cut this model's text at its line breaks: its tokenizer changes them. Load it as "
            "its makers do, train with algorithm=gspo, or use another model."
        )
        return Check(CUTS, FAILED, "; ".join(wrong), fix)
    text = f"{len(TEXTS)} texts, {segments} segments"
    if moved:
        fix = "Nothing to fix: the tokens with text after their line break move these cuts by a few characters."
        return Check(CUTS, WARNING, f"{text}; {'; '.join(moved)}", fix)
    but = ", or after the next line's indentation" if indented else ""
    return Check(CUTS, OK, f"{text}: the tokens are cut where the text is{but}")
