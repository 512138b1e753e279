"""Real vocabularies (lib/real_vocabularies.py): cutting tokens by the table cuts the text at its line breaks."""

import os
import random
from pathlib import Path

import pytest
import reference
import torch
from real_vocabularies import random_text

from sspo_verl.segments import line_break_table, segment_ids

DATA = Path(os.environ.get("SSPO_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MATH = DATA / "math" / "train.parquet"


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    texts = ["", "\n", " ", "a", "a\n", "\na", "\n\n\n", *(random_text(rng) for _ in range(3000))]
    assert sum(text.count("\n") > 2 for text in texts) > 2000
    return texts


# The check


def segments_by_table(token_ids, table, masks=None):
    """Segment ids of each row, through padded batches."""
    masks = masks or [[1] * len(row) for row in token_ids]
    out = []
    for start in range(0, len(token_ids), 250):
        rows = token_ids[start : start + 250]
        length = max(map(len, rows))
        batch = torch.tensor([row + [-1] * (length - len(row)) for row in rows])
        mask = torch.tensor([m + [0] * (length - len(m)) for m in masks[start : start + 250]])
        ids = segment_ids(batch, mask, table).tolist()
        out += [row[: len(tokens)] for row, tokens in zip(ids, rows, strict=True)]
    return out


def group(token_ids, ids):
    """The tokens of each segment."""
    segments = [[] for _ in range(max(ids, default=-1) + 1)]
    for token, j in zip(token_ids, ids, strict=True):
        segments[j].append(token)
    return segments


def check_text(tokenizer, table, texts, end=None):
    """Cut the tokens, decode each segment alone, and compare with the text cut at its line breaks."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if end is not None:
        encoded = [[*token_ids, end] for token_ids in encoded]
    rows = segments_by_table(encoded, table)
    grouped = [group(token_ids, ids) for token_ids, ids in zip(encoded, rows, strict=True)]
    decoded = iter(
        tokenizer.backend_tokenizer.decode_batch(
            [segment for row in grouped for segment in row], skip_special_tokens=True
        )
    )
    cuts = 0
    for text, ids, segments in zip(texts, rows, grouped, strict=True):
        expected = reference.lines_of_text(text)
        if end is not None:
            # The end token is blank: part of the last segment, or alone when there is no text at all.
            assert len(set(ids[-2:])) == 1
            expected = expected or [""]
        assert [next(decoded) for _ in segments] == expected
        cuts += len(expected) - 1
    return cuts


def test_qwen_tokens_with_a_line_break_end_with_it(qwen_bytes, qwen):
    assert len(qwen_bytes) == 151_643
    with_break = [i for i, token in enumerate(qwen_bytes) if b"\n" in token]
    assert len(with_break) == 2178
    assert all(qwen_bytes[i].endswith(b"\n") for i in with_break)
    # 200 are spaces, tabs, line feeds and carriage returns, and one is a no-break space before its line feed.
    blank = [i for i in with_break if not qwen_bytes[i].decode().strip()]
    assert len([i for i in blank if not qwen_bytes[i].strip()]) == 200
    assert [qwen_bytes[i].decode() for i in blank if qwen_bytes[i].strip()] == ["\u00a0\n"]

    table = line_break_table(qwen)
    assert table.shape == (151_646,)
    # Between two letters, the table's answer shows: a segment ends exactly at these tokens.
    a = qwen.convert_tokens_to_ids("a")
    rows = torch.tensor([[a, i, a] for i in range(len(qwen))])
    cut = segment_ids(rows, torch.ones_like(rows), table)[:, 2] == 1
    assert cut.nonzero().flatten().tolist() == with_break
    # At the start of a line, a token that is white space or special joins the line before; the others do not.
    line_break = qwen.convert_tokens_to_ids("Ċ")
    rows = torch.tensor([[a, line_break, i] for i in range(len(qwen))])
    joins = segment_ids(rows, torch.ones_like(rows), table)[:, 2] == 0
    blank = [i for i, token in enumerate(qwen_bytes) if not token.decode(errors="replace").strip()]
    assert joins.nonzero().flatten().tolist() == [*blank, *range(151_643, 151_646)]


def test_qwen_cuts_where_the_text_has_its_line_breaks(qwen, texts):
    table = line_break_table(qwen)
    assert check_text(qwen, table, texts) > 20_000
    assert check_text(qwen, table, texts[::5], end=qwen.convert_tokens_to_ids("<|im_end|>")) > 4_000


def test_sentencepiece_cuts_where_the_text_has_its_line_breaks(sentencepiece, texts):
    table = line_break_table(sentencepiece)
    pieces = sentencepiece.backend_tokenizer.decode_batch([[i] for i in range(32_000)], skip_special_tokens=False)
    assert [i for i, piece in enumerate(pieces) if "\n" in piece] == [13]
    # Its decoder drops the space in front of what it is given, so a letter is put in front of each text, and segments
    # are compared by where they end: the tokens up to there must decode to the text up to a line break.
    cuts = 0
    for text in ("x" + text for text in texts[::3]):
        token_ids = sentencepiece.encode(text, add_special_tokens=False)
        (ids,) = segments_by_table([token_ids], table)
        ends = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1]]
        expected = reference.lines_of_text(text)
        starts = ["".join(expected[: n + 1]) for n in range(len(expected) - 1)]
        assert [sentencepiece.decode(token_ids[:end]) for end in ends] == starts
        cuts += len(ends)
    assert cuts > 5_000


def test_tekken_cuts_after_the_token_that_holds_the_line_break(tekken, texts):
    table = line_break_table(tekken)
    assert table.shape == (131_072,)
    decoded = [tekken.decode([i]) for i in range(len(tekken))]
    with_break = {i for i, text in enumerate(decoded) if "\n" in text}
    beyond = {i for i in with_break if not decoded[i].endswith("\n")}
    assert (len(with_break), len(beyond)) == (1069, 66)
    assert {"}\n\n/", ";\n//"} <= {decoded[i] for i in beyond}

    # Tekken has the no-break space in two tokens of one byte each, and no byte alone is known for white space.
    texts = [text.replace("\u00a0", " ") for text in texts]
    moved = 0
    encoded = [tekken.encode(text, add_special_tokens=False) for text in texts]
    for text, token_ids, ids in zip(texts, encoded, segments_by_table(encoded, table), strict=True):
        # Every cut of the text moves to the end of the token that holds the line break: "};\n//" + " done".
        pieces, piece = [], []
        for token in token_ids:
            piece.append(token)
            if token in with_break:
                pieces.append(tekken.decode(piece))
                piece = []
                moved += token in beyond
        if piece:
            pieces.append(tekken.decode(piece))
        assert "".join(pieces) == text
        assert [tekken.decode(segment) for segment in group(token_ids, ids)] == reference.merge_blank(pieces)
    assert moved > 100


@pytest.mark.parametrize("name", ["qwen", "tekken", "sentencepiece"])
def test_masked_responses_match_the_reference(name, texts, request):
    # Two turns with a special token between them and a masked stretch, as a tool's output would be.
    tokenizer = request.getfixturevalue(name)
    table = line_break_table(tokenizer)
    special = set(tokenizer.all_special_ids)
    if name == "qwen":
        special |= {151_644, 151_645}
    rng = random.Random(1)
    token_ids, masks = [], []
    for text in texts[::3]:
        turns = [tokenizer.encode(part, add_special_tokens=False) for part in (text, *rng.sample(texts, 2))]
        token_ids.append([*turns[0], max(special), *turns[1], *turns[2], max(special)])
        masks.append([1] * (len(turns[0]) + 1) + [0] * len(turns[1]) + [1] * (len(turns[2]) + 1))
        if rng.random() < 0.3:  # and single rejected tokens
            masks[-1] = [m * int(rng.random() < 0.9) for m in masks[-1]]
    text_of = {i: tokenizer.decode([i]) for i in set().union(*token_ids)}
    expected = [
        reference.segments_of_row([text_of[i] for i in row], [i in special for i in row], mask)
        for row, mask in zip(token_ids, masks, strict=True)
    ]
    assert segments_by_table(token_ids, table, masks) == expected


@pytest.mark.skipif(not MATH.exists(), reason=f"the MATH data set is not at {MATH} (set SSPO_TEST_DATA)")
def test_qwen_on_the_solutions_of_math(qwen):
    import pandas

    rows = pandas.read_parquet(MATH, columns=["reward_model"])["reward_model"]
    solutions = [row["ground_truth"]["solution"] for row in rows]
    assert len(solutions) == 7500
    # One in three, for the time that it takes.
    assert check_text(qwen, line_break_table(qwen), solutions[::3]) > 8_000
