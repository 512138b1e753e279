"""Every segmenter against the scalar reference: golden rows, random rows, real vocabularies, invariances."""

import dataclasses
import functools
import random
import re

import pytest
import reference
import torch

from sspo_verl.segmenters import SEGMENTERS, SegmentSettings, check, register_segmenter, segmenter_of
from sspo_verl.segmenters.fixed import cut_long
from sspo_verl.segments import renumbered

END = "<end>"
# Words, stops, closers, abbreviations, numbers, LaTeX, white space and line breaks, alone and together.
VOCABULARY = [
    *("a", "x ", " the", "S", " U", ".S", "Dr", " Fig", "etc", "No", " no", "e", " Ph", ".D"),
    *(".", "!", " ?", "...", "…", ").", ".)", '."', "!'", ".$", ".**", "。", "！", "。”", "?！"),  # noqa: RUF001
    *(")", '"', "*", "”", "}"),
    *("3", " 14", "0", "7", " 2"),
    *("$", " $", "$$", "\\(", "\\)", "\\[", "\\]", "\\", "[", "(", "]", "begin", "end", "\\begin", "{", "\\\\", "\\$"),
    *(" ", "  ", "\t", "", "\n", "\n\n", " \n", ".\n", "。\n", "\\]\n", "a.\n\n", "\r\n"),
    *("xx. y", "。x", "a\nb", "$x$", "e.g.", " etc."),
    *("。!", "。.x", "。)", ".。"),
    *(END, "<pad>", "<br>\n"),
]
SPECIAL = {VOCABULARY.index(text) for text in (END, "<pad>", "<br>\n")}
# What the rule sees of each: of a special token its line breaks.
SEEN = [VOCABULARY[i] if i not in SPECIAL else "\n" * VOCABULARY[i].count("\n") for i in range(len(VOCABULARY))]
TOKENS = {text: i for i, text in enumerate(VOCABULARY)}


class Tokenizer:
    all_special_ids = sorted(SPECIAL)

    def __len__(self):
        return len(VOCABULARY)

    def decode(self, ids):
        return "".join(VOCABULARY[i] for i in ids)


MARKS = ('"', "*", "$")
WIDE = re.compile(rf"[{reference.WIDE_STOPS}][{re.escape(reference.STOPS + reference.BRACKETS)}]*\Z")
# Behind a full-width stop a plain one, in a token with other text (or with a mark) behind it.
_RUN = re.escape(reference.STOPS + reference.BRACKETS)
PLAIN_AND_MORE = re.compile(rf"[{_RUN}]*[{reference.STOPS}][{_RUN}]*[^\s{_RUN}{reference.WIDE_STOPS}]")
RUNS = [text for text in VOCABULARY if text and not text.strip(reference.STOPS + reference.BRACKETS)]
CLOSING = [text for text in VOCABULARY if text and not text.strip(reference.CLOSERS)]


def digits_before(kept):
    """How many tokens of digits and white space a row ends with."""
    texts = [VOCABULARY[i] for i in reversed(kept)]
    return next((n for n, text in enumerate(texts) if not re.fullmatch(r"[ \t\d]*", text)), len(texts))


def settings_of(name, **settings):
    return SegmentSettings(name, **settings)


CASES = {
    "token": (settings_of("token"), lambda texts, special, mask: reference.tokens_of_row(mask)),
    "response": (settings_of("response"), lambda texts, special, mask: reference.response_of_row(mask)),
    "turn": (settings_of("turn"), lambda texts, special, mask: reference.turns_of_row(mask)),
    "fixed": (settings_of("fixed", segment_tokens=3), lambda texts, special, mask: reference.fixed_of_row(mask, 3)),
    "line_break": (settings_of("line_break"), reference.segments_of_row),
    "sentence": (settings_of("sentence"), reference.sentences_of_row),
    "regex": (
        settings_of("regex", segment_regex=r"[.;\n。]"),
        lambda texts, special, mask: reference.matches_of_row(texts, special, mask, r"[.;\n。]"),
    ),
}


@pytest.fixture(scope="module")
def segmenters():
    return {case: segmenter_of(Tokenizer(), settings) for case, (settings, _) in CASES.items()}


def random_rows(seed, rows, length, favourites=(1, 12)):
    """Token ids and masks. A row draws from a few tokens only, so that they meet in every order."""
    rng = random.Random(seed)
    tokens, masks = [], []
    for _ in range(rows):
        few = rng.sample(range(len(VOCABULARY)), rng.randint(*favourites))
        tokens.append([rng.choice(few) for _ in range(length)])
        used = rng.choice((0, 1, length, rng.randint(0, length)))
        hole_rate = rng.choice((0, 0, 0.1, 0.4))
        masks.append([int(t < used and rng.random() >= hole_rate) for t in range(length)])
    return tokens, masks


def expected_ids(case, tokens, masks):
    return [
        CASES[case][1]([VOCABULARY[i] for i in row], [i in SPECIAL for i in row], mask)
        for row, mask in zip(tokens, masks, strict=True)
    ]


@pytest.mark.parametrize("case", CASES)
def test_random_rows_match_the_reference(case, segmenters):
    for seed in range(40):
        tokens, masks = random_rows(seed, rows=24, length=(1, 2, 3, 8, 20, 40)[seed % 6])
        if case == "sentence":
            tokens = [without_what_a_table_cannot_see(row) for row in tokens]
        found = segmenters[case](torch.tensor(tokens), torch.tensor(masks), None)
        assert found.dtype == torch.int64
        for row, mask, ids, expected in zip(
            tokens, masks, found.tolist(), expected_ids(case, tokens, masks), strict=True
        ):
            assert ids == expected, [(VOCABULARY[i], *x) for i, *x in zip(row, mask, ids, expected, strict=True)]


def without_what_a_table_cannot_see(row):
    """The row without tokens that together spell what one token or two do not show; docs/segments.md lists it."""
    kept = []
    for token in row:
        left, right = "".join(SEEN[i] for i in kept), SEEN[token]
        last = SEEN[kept[-1]] if kept else ""
        unseen = (
            (left.endswith("\\") and right[:1] == "\\")  # backslashes of two tokens
            or (left.endswith("\\") and right[:2] == "$$")
            or "$$$" in left[-2:] + right[:2]
            or (left.endswith("\\$") and right[:1] == "$")
            or (left.endswith(("begin", "end")) and right[:1].isalpha())  # a longer command
            or ("\n" in right and not right.strip() and left.endswith((" ", "\t", "b")))  # a blank line of three tokens
            or (right in CLOSING and sum(VOCABULARY[i] in CLOSING for i in kept[-2:]) == 2)  # three tokens that close
            or (right[:1] == "." and left[-1:].isdecimal() and digits_before(kept) > 3)
            or (last in MARKS and right[:1] in reference.CLOSERS)  # after a full-width stop: does the mark open?
            or (WIDE.search(left) and PLAIN_AND_MORE.match(right))
            or (right in RUNS and sum(SEEN[i] in RUNS for i in kept[-2:]) == 2)  # three tokens of plain stops
        )
        kept += [] if unseen or (token in SPECIAL | {TOKENS[""]} and left.endswith("\\")) else [token]
    return kept + [TOKENS["a"]] * (len(row) - len(kept))


@pytest.mark.parametrize(
    ("tokens", "segments"),
    [
        ([".", ")", '"', " the"], 2),  # two tokens close behind the stop
        (["。", ")", "”", "a"], 2),
        (["。", "!", "a"], 2),  # behind a full-width stop a plain one ends it too, whatever follows
        (["。", "”", "!", "a"], 2),
        (["。”", ".", "a"], 2),
        (["。!", "a"], 2),
        (["!", "。", "a"], 2),
        (["。", "!", '"', " the"], 2),
        (["3", ".", " the"], 1),  # a number that the row begins with
        ([".\n", "\t", "3", "7", ".", " the"], 2),
        (["a", " 14", ".", " the"], 2),
        (["No", ".", " ", "3"], 1),
        (["a", "No", ".", " 14"], 2),
        (["No", ".", " the"], 2),
        (["$", "a", "$$", "e", "$", ".", " the"], 2),  # two formulas beside each other
        (["$", "$", "a", ".", " the", "$", "$", ".", " the"], 2),  # a $$ of two tokens
        (["\\", "[", "a", ".", " the", "\\", "]", ".", " the"], 2),
        (["\\[", "\\begin", " the", "\\", "end", ".", " the", "\\]\n", "a"], 2),
        (["\\[", "a", ".", "\n", "\n", "e", ".", " the"], 3),  # a blank line of two tokens
    ],
    ids=lambda x: "".join(x).strip() if isinstance(x, list) else str(x),
)
def test_rows_that_chance_seldom_makes(tokens, segments, segmenters):
    row = torch.tensor([[TOKENS[text] for text in tokens]])
    (ids,) = segmenters["sentence"](row, torch.ones_like(row), None).tolist()
    assert ids == reference.sentences_of_row(tokens, [False] * len(tokens), [1] * len(tokens))
    assert ids[-1] == segments - 1


SENTENCES = [
    ["The value is 3.14."],
    ['Dr. Smith says in Fig. 2, "Stop."', " Then U.S. trade, e.g. of oil, grew.", ' "Is it?"', " he asked...", " Yes!"],
    ["No.", " That is wrong.", " See No. 5 on p. 10 of it."],
    ["1. First do it.\n", "  2. Then this.", " And\n", "10. so on. \n\n"],
    ["Let $x = 3. y$ be.", " So \\(a. b\\) holds.", " Now $y = 3.$", " It is."],
    ["We have\n", "\\[\n x = 1. y\n\\begin{cases} 1 \\\\[2pt]\n 2 \\end{cases}\n\\]\n", "Then it ends."],
    ["\\begin{align*}\n x &= 1. \\\\\n y &= 2.\n\\end{align*}\n", "So."],
    ["$$a. b$$ Done.", " Then $x$$y$.", " Ok."],
    # What is not closed reaches to the end of its line, or of its paragraph.
    ["It costs $5. He paid\n", "it.", " Yes."],
    ["Now \\[ open \n never. closed\n\n", "New paragraph.", " Ok."],
    ["A price of \\$5.", " Then \\$6."],
    ["设 x 为未知数。", "则 2x + 3 = 7。", "$x$ 是什么？", "真的！", "**好**"],  # noqa: RUF001
    ["他说“好。”", "真的？）", "是"],  # noqa: RUF001
    ["(It is so.)", " Now **bold.**", " Next..."],
    ["see http://a.b/c.d and f(x).y"],
    ["\n\n A.", " B\n \n\n", "C"],
]


@pytest.mark.parametrize("case", ["line_break", "sentence", "regex"])
def test_of_a_special_token_the_line_breaks_count(case, segmenters):
    """In every segmenter that looks at line breaks, so that `regex` with one is `line_break`."""
    row = torch.tensor([[TOKENS[text] for text in ("a", "<br>\n", "a", "\n", "a", END, "a")]])
    assert segmenters[case](row, torch.ones_like(row), None).tolist() == [[0, 0, 1, 1, 2, 2, 2]]


@pytest.mark.parametrize("sentences", SENTENCES, ids=lambda sentences: sentences[0][:12].strip())
@pytest.mark.parametrize("name", ["qwen", "sentencepiece"])
def test_sentences_of_real_vocabularies(name, sentences, request):
    tokenizer = request.getfixturevalue(name)
    token_ids = tokenizer.encode("".join(sentences), add_special_tokens=False)
    row = torch.tensor([token_ids])
    ids = sentence_segmenter(tokenizer)(row, torch.ones_like(row), None)[0].tolist()
    # Compared by where they end: a tokenizer may drop the space in front.
    ends = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1]]
    starts = ["".join(sentences[: n + 1]) for n in range(len(sentences) - 1)]
    assert [tokenizer.decode(token_ids[:end]) for end in ends] == starts


@functools.cache
def sentence_segmenter(tokenizer):
    return segmenter_of(tokenizer, SegmentSettings("sentence"))


@pytest.mark.parametrize("name", ["qwen", "sentencepiece", "tekken"])
def test_sentences_of_tokens_are_those_of_the_text(name, request):
    """Random texts, two turns with a masked stretch between them: real tokens are cut where their text is."""
    tokenizer = request.getfixturevalue(name)
    rng = random.Random(0)
    rows, masks = [], []
    for _ in range(400):
        turns = [tokenizer.encode(sentences_text(rng), add_special_tokens=False) for _ in range(3)]
        rows.append(turns[0] + turns[1] + turns[2])
        masks.append([1] * len(turns[0]) + [0] * len(turns[1]) + [1] * len(turns[2]))
    text_of = texts_within_text(tokenizer, set().union(*rows))
    expected = [
        reference.sentences_of_row([text_of[i] for i in row], [False] * len(row), mask)
        for row, mask in zip(rows, masks, strict=True)
    ]
    length = max(map(len, rows))
    batch = torch.tensor([row + [-1] * (length - len(row)) for row in rows])
    mask = torch.tensor([m + [0] * (length - len(m)) for m in masks])
    found = sentence_segmenter(tokenizer)(batch, mask, None).tolist()
    different = 0
    for row, ids, wanted in zip(rows, found, expected, strict=True):
        different += ids[: len(row)] != wanted
    assert sum(max(ids) for ids in expected) > 3000
    assert different <= 400 * SPLIT[name]


SPLIT = {"qwen": 0, "sentencepiece": 0, "tekken": 0}


def texts_within_text(tokenizer, ids):
    (a,) = tokenizer.encode("a", add_special_tokens=False)[-1:]
    alone = tokenizer.decode([a])
    return {i: tokenizer.decode([a, i]).removeprefix(alone) for i in ids}


def sentences_text(rng):
    def words():
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))

    pieces = [words() + rng.choice(ENDS) + rng.choice((" ", " ", " ", "\n", "\n\n")) for _ in range(rng.randint(1, 8))]
    return "".join(pieces)


WORDS = [
    *("Let", "the", "Answer", "x", "n'est", "größer", "U.S.", "e.g.", "i.e.", "Dr.", "Fig.", "etc.", "vs.", "No. 5"),
    *("3.14", "42", "1,000.5", "$x$", "$y = 2. z$", "\\(a.b\\)", "$$c. d$$", "\\[\n e. f\n\\]", "**b**", '"q"', "(i)"),
    *("\\begin{align}\n x &= 1. \\\\\n\\end{align}", "漢字", "решение.", "f(x)", "a.b", "`c.d`", "$5", "\\$6"),
]
ENDS = (".", ".", "!", "?", "...", ".)", '."', "!**", "。", "？", "", ":", "?!", "…", "\n1.", "\n 12.")  # noqa: RUF001


# Invariances, of every segmenter


@pytest.fixture(scope="module", params=[*CASES, "entropy", "sentence of at most 3"])
def any_segmenter(request, segmenters):
    if request.param == "entropy":
        return segmenter_of(Tokenizer(), settings_of("entropy", segment_entropy_share=0.3))
    if request.param == "sentence of at most 3":
        return segmenter_of(Tokenizer(), settings_of("sentence", segment_max_tokens=3))
    return segmenters[request.param]


def batch_of(seed, rows=48, length=25):
    tokens, masks = random_rows(seed, rows, length)
    entropy = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(tokens), torch.tensor(masks), entropy


def test_ids_count_up_along_the_valid_tokens(any_segmenter):
    tokens, mask, entropy = batch_of(0)
    ids = any_segmenter(tokens, mask, entropy)
    assert ((ids == -1) == (mask == 0)).all()
    for row in ids.tolist():
        valid = [j for j in row if j >= 0]
        assert all(j - i in (0, 1) for i, j in zip([0, *valid], valid, strict=False))
        assert not valid or valid[0] == 0


def test_rows_padding_and_what_is_masked_do_not_matter(any_segmenter):
    cut = any_segmenter
    tokens, mask, entropy = batch_of(1)
    expected = cut(tokens, mask, entropy)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cut(tokens[order], mask[order], entropy[order]), expected[order])
    for rows in (slice(0, 1), slice(1, 17), slice(17, 48), slice(5, 5)):
        assert torch.equal(cut(tokens[rows], mask[rows], entropy[rows]), expected[rows])
    pad = torch.nn.functional.pad
    for left, right in ((0, 9), (9, 0), (4, 4)):
        padded = (
            pad(tokens, (left, right), value=TOKENS[".\n"]),
            pad(mask, (left, right)),
            pad(entropy, (left, right), value=9),
        )
        assert torch.equal(cut(*padded), pad(expected, (left, right), value=-1))
    for token, value in ((-1, float("nan")), (2**40, float("inf")), (TOKENS["\\["], 9.0), (TOKENS["$"], -float("inf"))):
        dirty = tokens.where(mask.bool(), token), mask, entropy.where(mask.bool(), value)
        assert torch.equal(cut(*dirty), expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (5, 0)], ids=str)
def test_empty_batches(shape, any_segmenter):
    empty = torch.zeros(shape, dtype=torch.int64)
    result = any_segmenter(empty, empty, empty.float())
    assert (result.shape, result.dtype) == (shape, torch.int64)


def test_inputs_stay_as_they_are_and_any_kind_of_mask_will_do(any_segmenter):
    inputs = batch_of(2)
    before = [x.clone() for x in inputs]
    expected = any_segmenter(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
    tokens, mask, entropy = inputs
    for dtype in (torch.bool, torch.int32, torch.float32, torch.bfloat16):
        assert torch.equal(any_segmenter(tokens.int(), mask.to(dtype), entropy), expected)


def test_layout_in_memory_changes_nothing(any_segmenter):
    inputs = batch_of(3)
    expected = any_segmenter(*inputs)
    assert torch.equal(any_segmenter(*(x.T.contiguous().T for x in inputs)), expected)
    assert torch.equal(any_segmenter(*(torch.stack((x, x), dim=2)[:, :, 1] for x in inputs)), expected)


def test_long_segments_are_cut_into_even_pieces():
    for seed in range(30):
        tokens, masks = random_rows(seed, rows=12, length=30)
        for case in ("line_break", "response", "turn", "token"):
            settings, _ = CASES[case]
            for longest in (1, 2, 3, 7, 30):
                cut = segmenter_of(Tokenizer(), dataclasses.replace(settings, segment_max_tokens=longest))
                found = cut(torch.tensor(tokens), torch.tensor(masks), None).tolist()
                assert found == [reference.cut_long_of_row(ids, longest) for ids in expected_ids(case, tokens, masks)]


def test_pieces_are_even():
    ids = cut_long(torch.zeros(1, 65, dtype=torch.int64), 64)
    assert ids[0].bincount().tolist() == [33, 32]


def test_entropy_matches_the_reference():
    for seed in range(60):
        rng = random.Random(seed)
        length = rng.choice((1, 2, 5, 10, 29, 40))
        _, masks = random_rows(seed, rows=16, length=length)
        # Few different values, so that many are alike, and what is no number.
        values = rng.sample((0.0, 0.1, 0.5, 1.0, 2.0, 3.0, float("nan"), float("inf")), rng.randint(1, 8))
        rows = [[rng.choice(values) for _ in range(length)] for _ in masks]
        share = rng.choice((0.01, 0.1, 0.29, 0.5, 0.7, 1.0))
        cut = segmenter_of(Tokenizer(), settings_of("entropy", segment_entropy_share=share))
        found = cut(
            torch.zeros(16, length, dtype=torch.int64), torch.tensor(masks), torch.tensor(rows, dtype=torch.float64)
        )
        assert found.tolist() == [
            reference.entropy_of_row(row, mask, share) for row, mask in zip(rows, masks, strict=True)
        ]


# One's own


@pytest.fixture
def register():
    """`register_segmenter`, for the length of a test."""
    before = dict(SEGMENTERS)
    yield register_segmenter
    SEGMENTERS.clear()
    SEGMENTERS.update(before)


def own(register, cut, **settings):
    """A user's segmenter: `cut`, made by a factory."""
    register("own")(lambda tokenizer, settings: cut)
    return segmenter_of(Tokenizer(), SegmentSettings("own", **settings))


def test_ids_of_ones_own_are_numbered_anew(register):
    """Gaps, numbers that go down or come again, and what is under the mask: as loops say, on every device."""
    given = torch.zeros(1)
    cut = own(register, lambda token_ids, response_mask, entropy: given if len(given) > 1 else response_mask.long() - 1)
    for seed in range(30):
        rng = random.Random(seed)
        _, masks = random_rows(seed, rows=12, length=20)
        numbers = rng.choice(([-1, 0, 7], [3, 2, 1, 0], [0, 1], [5, 2**62]))
        rows = [[rng.choice(numbers) for _ in mask] for mask in masks]
        rows = [sorted(row, reverse=rng.random() < 0.5) if rng.random() < 0.5 else row for row in rows]
        given = torch.tensor(rows)
        found = cut(torch.zeros_like(given), torch.tensor(masks), None)
        assert torch.equal(given, torch.tensor(rows))
        assert found.tolist() == [reference.renumbered_row(*x) for x in zip(rows, masks, strict=True)]


def test_ids_that_count_up_already_stay_as_they_are(any_segmenter):
    tokens, mask, entropy = batch_of(4)
    ids = any_segmenter(tokens, mask, entropy)
    assert torch.equal(renumbered(ids, mask), ids)
    assert renumbered(ids[:, :0], mask[:, :0]).shape == (48, 0)


@pytest.mark.parametrize("longest", [None, 2])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids[:1], "int64, \\[1, 3\\], on cpu"),
        (lambda ids: ids[0], "int64, \\[3\\], on cpu"),
        (lambda ids: ids[:, :1], "int64, \\[2, 1\\], on cpu"),
        (lambda ids: ids.to("meta"), "int64, \\[2, 3\\], on meta"),
        *((lambda ids, dtype=dtype: ids.to(dtype), f"returns {str(dtype)[6:]}, ")
          for dtype in (torch.bool, torch.uint8, torch.int16, torch.int32, torch.float32)),
        (lambda ids: ids.tolist(), "returns a list"),
        (lambda ids: None, "returns a NoneType"),
        (lambda ids: 1 / 0, "cannot cut a batch .*ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_is_no_segment_ids_is_refused_when_it_is_made(change, said, longest, register):
    with pytest.raises(ValueError, match=f"segmenter=own: .*{said}"):
        own(register, lambda token_ids, mask, entropy: change(mask.long() - 1), segment_max_tokens=longest)


def test_what_is_no_segment_ids_later_is_refused_then(register):
    cut = own(register, lambda token_ids, mask, entropy: mask.long()[: 2 if len(mask) < 9 else 1] - 1)
    tokens, mask, _ = batch_of(5)
    with pytest.raises(ValueError, match=r"segmenter=own: .* \[48, 25\], on cpu, but returns int64, \[1, 25\]"):
        cut(tokens, mask, None)


def test_a_factory_without_return_is_refused(register):
    with pytest.raises(ValueError, match=r"segmenter=own: it returns None, not a function .* return"):
        own(register, None)


def test_every_setting_that_one_uses_has_to_be_given(register):
    register("own", uses=("segment_tokens", "segment_max_tokens"))(lambda tokenizer, settings: None)
    wanted = "segment_max_tokens must be set with segmenter=own: the maximum number of tokens"
    with pytest.raises(ValueError, match=wanted):
        check(SegmentSettings("own", segment_tokens=3))
    with pytest.raises(ValueError, match="segment_tokens must be set"):
        check(SegmentSettings("own", segment_max_tokens=3))
    check(SegmentSettings("own", segment_tokens=3, segment_max_tokens=3))


@pytest.mark.parametrize("uses", [("segment_tokns",), ("segmenter",), ["segment_tokens", 3], "segment_tokens"])
def test_a_setting_that_there_is_none_of_is_refused(uses, register):
    with pytest.raises(ValueError, match=r"'own' uses .*not a setting. Available: segment_tokens, "):
        register("own", uses=uses)
    assert "own" not in SEGMENTERS


class Own:
    def __call__(self, tokenizer, settings):
        return lambda token_ids, mask, entropy: mask.long() - 1


def test_a_callable_object_can_be_a_factory(register):
    register("own")(Own())
    register("own")(Own())  # a file that is loaded again
    assert segmenter_of(Tokenizer(), SegmentSettings("own"))(*batch_of(0)).amax() == 0
    with pytest.raises(ValueError, match=r"'own' is \S*test_segmenters.Own already. Choose another name for functools"):
        register("own")(functools.partial(Own()))
    with pytest.raises(ValueError, match=r"Choose another name for \S*sentence_segmenter"):
        register("own")(sentence_segmenter)


@pytest.mark.parametrize("name", ["segment_tokens", "segment_max_tokens"])
def test_a_number_of_tokens_has_a_limit(name):
    """Larger ones would leave int64."""
    settings = {"segmenter": "fixed", "segment_tokens": 2**31 - 1, name: 2**31 - 1}
    cut = segmenter_of(Tokenizer(), SegmentSettings(**settings))
    assert cut(torch.zeros(1, 4), torch.ones(1, 4), None).tolist() == [[0] * 4]
    for number in (2**31, 2**63, 2**100):
        with pytest.raises(ValueError, match=f"{name} must be at most 2147483647, got {number}. Set null"):
            check(SegmentSettings(**(settings | {name: number})))


# Regular expressions


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\n\n", r"in the token '\\n\\n' its matches are not single"),
        (r"\n+", r"in the token '\\n\\n'"),
        (r"\.(?= )", "in the token 'xx. y'"),
        (r"[.!?]\s", "in the token"),
        (r"7(?!3)", "across the tokens '7' and '3'"),
        (r"(?<!a)\)", r"across the tokens 'a' and '\)'"),
        (r"a\b", "in the token 'etc'|across the tokens 'a' and"),
        (r"7(?=漢)", "depend on other characters"),
        (r"$", "in the token"),
        (r"x*", "in the token"),
        (r"Q", "no token contains a match"),
    ],
)
def test_a_pattern_that_tokens_cannot_decide_is_refused(pattern, why):
    with pytest.raises(ValueError, match=why) as error:
        segmenter_of(Tokenizer(), settings_of("regex", segment_regex=pattern))
    assert "segment_regex=" in str(error.value)


def test_a_line_break_as_pattern_is_line_break(segmenters):
    cut = segmenter_of(Tokenizer(), settings_of("regex", segment_regex="\n"))
    for seed in range(20):
        tokens, masks = map(torch.tensor, random_rows(seed, rows=24, length=20))
        assert torch.equal(cut(tokens, masks, None), segmenters["line_break"](tokens, masks, None))


def test_a_pattern_is_decided_on_the_real_vocabulary(qwen):
    row = torch.tensor([qwen.encode("a; b: c; d\n\ne", add_special_tokens=False)])
    cut = segmenter_of(qwen, settings_of("regex", segment_regex="[;:\n]"))
    ids = cut(row, torch.ones_like(row), None)[0].tolist()
    parts = [[t for t, j in zip(row[0].tolist(), ids, strict=True) if j == k] for k in range(max(ids) + 1)]
    assert [qwen.decode(part) for part in parts] == ["a;", " b:", " c;", " d\n\n", "e"]
    with pytest.raises(ValueError, match=r"parts of characters"):
        segmenter_of(qwen, settings_of("regex", segment_regex="[^a-z]"))
    with pytest.raises(ValueError, match=r"in the token '.*\\n\\n.*'"):
        segmenter_of(qwen, settings_of("regex", segment_regex=r"\n\n"))
