"""The cuts of responses: `line_break_table` and `segment_ids` against the scalar reference."""

import random

import pytest
import reference
import tokenizers
import torch
from transformers import AddedToken, PreTrainedTokenizerFast

from sspo_verl.segments import line_break_table, segment_ids

END = "<end>"
# Every kind of token: text, white space, a line break alone, at the end, in front and in the middle, special.
VOCABULARY = [
    *("a", "b ", " c", "=", "7"),
    *(" ", "  ", "\t", "\r", "\u00a0", ""),
    *("\n", "\n\n", " \n", "\r\n", "\t\n\n", "\n  "),
    *("a\n", ".\n\n", ")\r\n", "}\n//", "\nb", "x\ny"),
    *(END, "<pad>"),
]
SPECIAL = {VOCABULARY.index(END), VOCABULARY.index("<pad>")}


class Tokenizer:
    """The smallest tokenizer: a length, the text of an id, and the ids that are special."""

    def __init__(self, vocabulary=VOCABULARY, special=SPECIAL):
        self.vocabulary, self.all_special_ids = vocabulary, sorted(special)

    def __len__(self):
        return len(self.vocabulary)

    def decode(self, ids):
        return "".join(self.vocabulary[i] for i in ids)


@pytest.fixture(scope="module")
def table():
    return line_break_table(Tokenizer())


def ids_of(table, tokens, mask=None):
    """Segment ids of one row, given as texts and a mask as a string of 0 and 1."""
    mask = [int(m) for m in mask] if mask else [1] * len(tokens)
    token_ids = torch.tensor([[VOCABULARY.index(token) for token in tokens]])
    return segment_ids(token_ids, torch.tensor([mask]), table)[0].tolist()


def random_rows(seed, rows, length):
    """Token ids and masks. A row draws from a few tokens only, so that long blank stretches come up."""
    rng = random.Random(seed)
    tokens, masks = [], []
    for _ in range(rows):
        favourites = rng.sample(range(len(VOCABULARY)), rng.randint(1, 5))
        tokens.append([rng.choice(favourites) for _ in range(length)])
        used = rng.choice((0, 1, length, rng.randint(0, length)))
        hole_rate = rng.choice((0, 0, 0.1, 0.4))
        masks.append([int(t < used and rng.random() >= hole_rate) for t in range(length)])
    return tokens, masks


def reference_ids(tokens, masks):
    return [
        reference.segments_of_row([VOCABULARY[i] for i in row], [i in SPECIAL for i in row], mask)
        for row, mask in zip(tokens, masks, strict=True)
    ]


@pytest.mark.parametrize(
    ("tokens", "mask", "expected"),
    [
        # A line break ends its segment and belongs to it; the rest of the text is the last segment.
        (["a", "=", "a\n", "b ", "\n", "7"], None, [0, 0, 0, 1, 1, 2]),
        # Text after the line break in the same token: the token still ends the segment.
        (["a", "x\ny", "a", "}\n//", "7"], None, [0, 0, 1, 1, 2]),
        (["a", "\nb", "7"], None, [0, 0, 1]),
        # Two lines that end with the token are two segments.
        (["a\n", ".\n\n", "7"], None, [0, 1, 2]),
        # Blank lines belong to the segment before them, however long the stretch and of whatever white space.
        (["a\n", "\n", " ", "\t", "\r\n", "\n\n", "7"], None, [0, 0, 0, 0, 0, 0, 1]),
        # ... or to the one after them at the start of a response.
        (["\n", " ", "\n\n", "a\n", "7"], None, [0, 0, 0, 0, 1]),
        # White space before text on the same line is indentation, not a blank line.
        (["a\n", "  ", "\t", "b ", "\n", "7"], None, [0, 1, 1, 1, 1, 2]),
        # The end token after a last line break, also with white space around it.
        (["a\n", "7", "\n", END], None, [0, 1, 1, 1]),
        (["a\n", "7", "\n", " ", END, "\n"], None, [0, 1, 1, 1, 1, 1]),
        # A special token within a line of text cuts nothing; on a line of its own it is blank.
        (["a", END, "b ", "\n", "7"], None, [0, 0, 0, 0, 1]),
        (["a\n", END, "\n", "7"], None, [0, 0, 0, 1]),
        (["a\n", END, "7"], None, [0, 1, 1]),
        # Only blank: one segment, not none.
        (["\n", " ", END], None, [0, 0, 0]),
        # A masked run ends a segment, with or without a line break at its edge.
        (["a", "b ", "7", "a"], "1101", [0, 0, -1, 1]),
        (["a", "a\n", "7", "7", "a"], "11001", [0, 0, -1, -1, 1]),
        # A masked line break is nobody's; what is masked cuts by being masked.
        (["a", "\n", "b "], "101", [0, -1, 1]),
        # After the mask the next text is the blank's only neighbour; before the mask the text before it.
        (["a\n", "7", "\n", "b "], "1011", [0, -1, 1, 1]),
        (["a\n", "\n", "7", "b "], "1101", [0, 0, -1, 1]),
        # A blank stretch without a neighbour on its side of the mask is a segment of its own.
        (["a\n", "7", "\n", " ", "7", "b "], "101101", [0, -1, 1, 1, -1, 2]),
        (["\n", "7", "a"], "101", [0, -1, 1]),
        # One token; masked at the start; all masked.
        (["a"], None, [0]),
        (["\n"], None, [0]),
        (["a", "a\n", "b "], "011", [-1, 0, 1]),
        (["a", "\n", "b "], "000", [-1, -1, -1]),
    ],
)
def test_golden_rows(table, tokens, mask, expected):
    assert ids_of(table, tokens, mask) == expected


@pytest.mark.parametrize("seed", range(60))
def test_random_batches_match_the_reference(table, seed):
    length = random.Random(seed).choice((1, 2, 3, 8, 20, 40))
    tokens, masks = random_rows(seed, rows=16, length=length)
    result = segment_ids(torch.tensor(tokens), torch.tensor(masks), table)
    assert result.dtype == torch.int64
    assert result.tolist() == reference_ids(tokens, masks)


def test_whatever_stands_under_the_mask_changes_nothing(table):
    tokens, masks = random_rows(seed=1, rows=200, length=30)
    token_ids, mask = torch.tensor(tokens), torch.tensor(masks)
    expected = torch.tensor(reference_ids(tokens, masks))
    v = len(VOCABULARY)
    for junk in (-1, -100, v, v + 1, 2**31, 2**62, -(2**63), *range(v)):
        dirty = torch.where(mask.bool(), token_ids, junk)
        assert torch.equal(segment_ids(dirty, mask, table), expected), f"id {junk} under the mask"


def test_any_integer_ids_and_any_kind_of_mask(table):
    tokens, masks = random_rows(seed=2, rows=100, length=20)
    expected = reference_ids(tokens, masks)
    for ids_dtype in (torch.int64, torch.int32, torch.int16):
        for mask_dtype in (torch.int64, torch.int32, torch.bool, torch.float32, torch.bfloat16):
            ids = torch.tensor(tokens, dtype=ids_dtype)
            result = segment_ids(ids, torch.tensor(masks, dtype=mask_dtype), table)
            assert result.dtype == torch.int64
            assert result.tolist() == expected, f"{ids_dtype}, {mask_dtype}"


def test_an_id_that_the_tokenizer_does_not_know_has_no_text(table):
    # A model's embedding is often longer than its vocabulary (Qwen2.5: 152,064 rows, 151,665 tokens), so a policy
    # can sample such ids. They decode to nothing, as a special token does under skip_special_tokens.
    a, line_break = VOCABULARY.index("a"), VOCABULARY.index("\n")
    for unknown in (len(VOCABULARY), len(VOCABULARY) + 1000):
        row = torch.tensor([[a, line_break, unknown, line_break, a, unknown, line_break, unknown]])
        assert segment_ids(row, torch.ones_like(row), table).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (5, 0)])
def test_empty_batches(table, shape):
    empty = torch.zeros(shape, dtype=torch.int64)
    result = segment_ids(empty, empty, table)
    assert result.shape == shape
    assert result.dtype == torch.int64


def test_rows_and_padding_do_not_touch_each_other(table):
    tokens, masks = random_rows(seed=3, rows=64, length=25)
    token_ids, mask = torch.tensor(tokens), torch.tensor(masks)
    expected = torch.tensor(reference_ids(tokens, masks))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(segment_ids(token_ids[order], mask[order], table), expected[order])
    # One row at a time.
    for row in range(64):
        only = slice(row, row + 1)
        assert torch.equal(segment_ids(token_ids[only], mask[only], table), expected[only])
    # Padding on either side, with a token that would cut if it counted.
    for left, right in ((0, 9), (9, 0), (4, 4)):
        padded = torch.nn.functional.pad(token_ids, (left, right), value=VOCABULARY.index("\n"))
        result = segment_ids(padded, torch.nn.functional.pad(mask, (left, right)), table)
        assert torch.equal(result[:, left : left + 25], expected)
        assert (result[:, :left] == -1).all()
        assert (result[:, left + 25 :] == -1).all()


def test_inputs_are_not_mutated(table):
    tokens, masks = random_rows(seed=4, rows=32, length=20)
    inputs = [torch.tensor(tokens), torch.tensor(masks), table]
    before = [x.clone() for x in inputs]
    versions = [x._version for x in inputs]
    result = segment_ids(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
    assert [x._version for x in inputs] == versions  # not even there and back
    # Nor does writing to the result reach an input.
    result.fill_(7)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_table_has_one_entry_per_token_and_tells_the_four_kinds_apart():
    # The entries are opaque, but text, blank, text that ends a line and blank that ends a line must differ.
    table = line_break_table(Tokenizer(["a", " ", "a\n", "\n", "b", "\t", "\nb", "\n ", END], {8}))
    assert table.shape == (9,)
    a, space, a_break, line_break, *_ = table.tolist()
    assert len({a, space, a_break, line_break}) == 4
    assert table.tolist() == [a, space, a_break, line_break, a, space, a_break, line_break, space]


def test_special_tokens_are_blank_even_with_text_and_even_when_only_added():
    class AddedToken:
        special = True

    class WithAddedTokens(Tokenizer):
        # Hugging Face's fast tokenizers keep tokens like <|im_end|> here, out of all_special_ids.
        added_tokens_decoder = {VOCABULARY.index(END): AddedToken()}  # noqa: RUF012

    assert torch.equal(line_break_table(WithAddedTokens(special=SPECIAL)), line_break_table(Tokenizer()))
    only_pad = SPECIAL - {VOCABULARY.index(END)}
    assert torch.equal(line_break_table(WithAddedTokens(special=only_pad)), line_break_table(Tokenizer()))
    assert not torch.equal(line_break_table(Tokenizer(special=only_pad)), line_break_table(Tokenizer()))


HOLES = {"a": 0, "x": 1, " ": 2, "d": 7, "x\n": 9, "e": 10}  # ids up to 10, and six tokens
ADDED_BREAK = 14


def rust_tokenizer_with_holes():
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(HOLES, unk_token="a"))
    core.decoder = tokenizers.decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core)


class PythonTokenizerWithHoles(Tokenizer):
    """Raises for an id without a token, as tokenizers in Python do. One more token is only among the added ones."""

    added_tokens_decoder = {ADDED_BREAK: AddedToken("\n", special=False)}  # noqa: RUF012

    def __init__(self):
        self.texts = {token_id: text for text, token_id in HOLES.items()} | {ADDED_BREAK: "\n"}
        self.all_special_ids = []

    def __len__(self):
        return len(self.texts)

    def get_vocab(self):
        return HOLES

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


def test_a_vocabulary_with_holes_has_a_table_up_to_its_largest_id():
    a, x, space, d, x_break, e = HOLES.values()
    for tokenizer, size in ((rust_tokenizer_with_holes(), 11), (PythonTokenizerWithHoles(), 15)):
        assert len(tokenizer) < size
        table = line_break_table(tokenizer)
        assert table.shape == (size,)
        row = torch.tensor([[a, x_break, d, e]])
        assert segment_ids(row, torch.ones_like(row), table).tolist() == [[0, 0, 1, 1]]
        # A hole has no text: alone on a line, it joins the line before.
        row = torch.tensor([[a, x_break, 5, x_break, d, space, x]])
        assert segment_ids(row, torch.ones_like(row), table).tolist() == [[0, 0, 1, 1, 2, 2, 2]]
        row = torch.tensor([[a, x_break, 5, 3]])
        assert segment_ids(row, torch.ones_like(row), table).tolist() == [[0, 0, 0, 0]]
    row = torch.tensor([[a, ADDED_BREAK, 12, ADDED_BREAK, d]])
    assert segment_ids(row, torch.ones_like(row), table).tolist() == [[0, 0, 0, 0, 1]]


def test_a_vocabulary_without_line_breaks_is_refused():
    with pytest.raises(ValueError, match="line break"):
        line_break_table(Tokenizer(["a", "b", " "], set()))
