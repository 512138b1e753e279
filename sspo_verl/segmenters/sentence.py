"""Segmenter `sentence`: at stops and line breaks, but not in numbers, behind abbreviations and inside LaTeX. Ours."""

import re
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int16, Shaped, UInt8
from torch import Tensor

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import counted_text, flag_table, ids_of_ends, look_up, number_at_last_event

Flags: TypeAlias = UInt8[Tensor, "batch length"]
Tokens: TypeAlias = Bool[Tensor, "batch length"]
STOPS, WIDE_STOPS = ".!?…", "。！？．｡"  # noqa: RUF001  those that need white space behind them, and those that do not
# They belong to the sentence whose stop is before them. A mark closes where white space follows; else it may open.
BRACKETS, MARKS = "”’)]}»」』）】》〉］｝", "\"'*_`$"  # noqa: RUF001
CLOSERS, RUN = BRACKETS + MARKS, STOPS + WIDE_STOPS + BRACKETS
_ABBREVIATION = re.compile(
    "Dr|Mr|Mrs|Ms|Prof|Sr|Jr|St|Fig|Figs|Eq|Eqs|Sec|Sect|Ch|Vol|Thm|Def|Prop|Cor|Ref|Refs|Ex|Inc|Ltd|Co|etc|vs|cf|al|"
    "approx|resp|viz|eg|ie|esp"
)
_BEFORE_NUMBER = re.compile("[Nn]os?|pp?")  # "No. 5", but "No. That is wrong."

# A token has four bytes of flags, and two more as the left of two neighbours. The first two are rules on both: a flag
# counts if the left has it, too (every left has those of the right alone). The others are the token's own. By bytes:
# what a token does with the one before it, and, in the same places of the third byte, what it does by itself. A number
# is in the two bits of OPEN and CLOSE: 1, 0 or -1.
DOLLARS, INLINE, DIGITS, DIGIT, DIGIT_2, PARAGRAPH = (1 << k for k in range(6))
OPEN, CLOSE = 1 << 6, 3 << 6
# Whether it closes what ended with STOP and with WIDE, in their places; and what makes a dot behind it that of a
# number, in the places of the DIGITS, DIGIT and DIGIT_2 that this takes, or of an abbreviation.
CLOSER, BRACKET, NUMBER, NUMBERED, NUMBERED_WORD, LETTER, ABBREVIATION, WORD = (1 << k for k in range(8))
# What its text ends with, that it has text, what it begins with (whether that lets STOP and WIDE end a sentence, which
# INNER always does), and that it has a line break.
STOP, WIDE, INNER, DOT, TEXT, SPACE_FIRST, NO_RUN_FIRST, LINE = (1 << k for k in range(8))

OF_ABBREVIATION = LETTER | ABBREVIATION | WORD
ANY_LEFT = (CLOSER | BRACKET | NUMBER | NUMBERED | ABBREVIATION) << 8
NO_WORD_LEFT = (WORD | NUMBERED_WORD) << 8 | ANY_LEFT
EDGE_LEFT = DIGITS | NO_WORD_LEFT  # of a masked token, and of the first one's

# torch makes a tensor of a Python number at each use, which takes as long as the operation on a byte of each token.
# These are made once, and are on the CPU, as it would make them, wherever the other tensors are.
BYTES = tuple(torch.tensor(k, dtype=torch.uint8, device="cpu") for k in range(256))

_CLOSERS = re.escape(CLOSERS)
_RUN = re.escape(RUN)
# A run of stops and brackets with a full-width stop in it ends a sentence at its own end. This is a next token that
# goes on with it, and in which that end is found: by a full-width stop, as all of it, by a line break or white space.
_FIRST_RUN = re.compile(rf"[{_RUN}]*[{WIDE_STOPS}]|[{_RUN}]+(?:\Z|\s*\n)|[{_RUN}]*[{STOPS}][{_CLOSERS}]*\s")
_INNER = re.compile(f"[{STOPS}][{_CLOSERS}]*\\s|[{WIDE_STOPS}][{_RUN}]*[^{_RUN}]")
_DOT = re.compile(rf"\.[{_CLOSERS}]*")
_LAST_WORD = re.compile(r"([^A-Za-z]?)([A-Za-z]+)\Z")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_LATEX = re.compile(r"\\(?:begin(?![A-Za-z])|end(?![A-Za-z])|.|\Z)|\$\$?", re.DOTALL)


@register_segmenter("sentence")
def sentence(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment ends after a stop with its closing quotes and brackets, and after a line break: docs/segments.md.

    Blank and masked stretches as in `line_break`. Integer prefix scans only: exact on every device.
    """
    kinds, tables = _tables(tokenizer)

    def cut(token_ids, response_mask, entropy):
        if token_ids.numel() == 0:
            return token_ids.long()
        valid = response_mask.bool()
        kind = look_up(kinds.to(token_ids.device), token_ids, UNKNOWN_KIND).mul_(valid).int()
        left, right, rest = (table.to(kind.device).index_select(0, kind.view(-1)).view(kind.shape) for table in tables)
        right &= torch.nn.functional.pad(left, (1, -1), value=_as_int16(EDGE_LEFT))
        (pairs, word), (own, edges) = _bytes(right), _bytes(rest)
        return ids_of_ends(valid, (edges & BYTES[TEXT]).bool(), _sentence_ends(pairs, word, own, edges))

    return cut


def _bytes(words: Int16[Tensor, "batch length"]) -> tuple[Flags, Flags]:
    return words.to(torch.uint8), (words >> 8).to(torch.uint8)  # modulo 256


def _sentence_ends(pairs: Flags, word: Flags, own: Flags, edges: Flags) -> Tokens:
    """True after which a sentence ends. By the four bytes of flags."""
    run = edges ^ (_is_short(pairs, word, own) & (edges >> BYTES[3]))  # a dot has STOP: taken from it
    # WIDE also for brackets and plain stops behind it, which are no STOP to the closing quotes and brackets behind
    # them; and STOP for these.
    run |= _behind(run & BYTES[WIDE], word)
    run |= _behind(run & ~(run >> BYTES[1]) & BYTES[STOP], word)
    ends = (run & (_after(edges >> BYTES[5]) | BYTES[INNER])).bool().view(torch.uint8)
    line = edges >> BYTES[7]
    inline, display = _inside_latex(pairs, own, line)
    return (line | ends & ~inline) > display


def _behind(flag: Flags, closes: Flags) -> Flags:
    """The flag at up to two tokens behind one that has it, that have it in `closes`."""
    first = _before(flag) & closes
    return first | _before(first) & closes


def _is_short(pairs: Flags, word: Flags, own: Flags) -> Flags:
    """1 where a dot would be that of an abbreviation, or of a number that a line begins with; else 0."""
    # Between the dot and the start of its line are one to three tokens of digits and white space.
    first = pairs & BYTES[DIGITS]
    of_line = first | _behind(first, own)
    # No. and the like: the dot is before a digit, or white space and a digit.
    number = _after(own | _after(pairs))
    word = _before(word & (of_line | BYTES[OF_ABBREVIATION | NUMBERED | NUMBERED_WORD]))
    return (word & (number | BYTES[OF_ABBREVIATION | NUMBER])).bool().view(torch.uint8)


def _inside_latex(pairs: Flags, own: Flags, line: Flags) -> tuple[Flags, Flags]:
    """1 after which one is inside $...$ or \\(...\\) of this line, in bit 0 alone; inside $$...$$, \\[...\\],
    \\begin...\\end of this paragraph. A formula that is not closed so reaches no further."""
    changes = own ^ pairs
    toggles = changes & BYTES[INLINE]
    odd = toggles.cumsum(dim=1, dtype=torch.uint8)  # modulo 256 leaves that as it is
    inline = (odd ^ number_at_last_event(odd ^ toggles, line)) >> BYTES[1]

    # "$x$$y$" is of two formulas beside each other; and a $$ may be of two tokens.
    dollars = own ^ changes & _before(inline)
    # Modulo 256: the depth, and 128 where a $$ is open. Up to 63 deep it says which.
    change = (changes.view(torch.int8) >> 6).view(torch.uint8) ^ (dollars << BYTES[7])
    so_far = change.cumsum(dim=1, dtype=torch.uint8)
    paragraph = ((own | pairs) & BYTES[PARAGRAPH]).bool()
    until = number_at_last_event(so_far - change, paragraph) - so_far  # of these 256, those over 64 are inside
    return inline, (until | until + BYTES[63]) >> BYTES[7]


def _before(values: Flags) -> Flags:
    """What the token before has; 0 for the first."""
    return torch.nn.functional.pad(values, (1, -1))


def _after(values: Flags) -> Flags:
    """What the token after has; 0 for the last."""
    return torch.nn.functional.pad(values, (-1, 1))


# The table


def flags_of(text: str, special: bool) -> tuple[int, int]:
    """The flags of a token's text: (two bytes as the left of two neighbours, the four of its own)."""
    text = counted_text(text, special)
    if not text:
        return NO_WORD_LEFT, DIGITS | DIGITS << 16 | (SPACE_FIRST | NO_RUN_FIRST) << 24
    own = _own(text)
    return _left(text), _pairs(text, own) | _word(text) << 8 | own << 16 | _edges(text) << 24


def _tables(tokenizer) -> tuple[Shaped[Tensor, " vocab"], tuple[Int16[Tensor, " kinds"], ...]]:
    """The kind of each token, and by kind its flags: two bytes as the left of two neighbours, and twice two of its own.

    There are fewer than 256 kinds of flags in a vocabulary, so that the one large table has a byte for each token. More
    will do. Kind 0 is a masked token's, 1 that of an id outside the vocabulary.
    """
    flags = flag_table(tokenizer, lambda *token: _as_int64(flags_of(*token)), _as_int64(UNKNOWN), torch.int64, True)
    flags, kinds = flags.unique(return_inverse=True)
    flags = torch.cat((flags.new_tensor([_as_int64(MASKED), _as_int64(UNKNOWN)]), flags))
    kinds = (kinds + 2).to(torch.uint8 if len(flags) <= 256 else torch.int32)
    return kinds, tuple((flags >> shift).to(torch.int16) for shift in (32, 0, 16))  # modulo 2^16


def _as_int64(words: tuple[int, int]) -> int:
    return words[0] << 32 | words[1]


def _as_int16(word: int) -> int:
    return word - (1 << 16) if word >> 15 else word


UNKNOWN, UNKNOWN_KIND = flags_of("", True), 1
MASKED = (EDGE_LEFT, PARAGRAPH << 16 | LINE << 24)


def _left(text: str) -> int:
    flags = ANY_LEFT | (0 if text[-1].isalnum() else NO_WORD_LEFT) | (LETTER << 8 if text[-1] == "." else 0)
    if (_LATEX.findall(text) or [""])[-1] == "\\":
        flags |= INLINE | OPEN | CLOSE
    flags |= DOLLARS if re.search(r"(?<![$\\])\$\Z", text) else 0
    flags |= DIGIT | DIGIT_2 if not text.strip(" \t") else 0
    if "\n" in text:
        flags |= PARAGRAPH
        flags |= DIGITS if not text[text.rfind("\n") :].strip(" \t\n0123456789") else 0
    return flags


def _pairs(text: str, own: int) -> int:
    flags = INLINE if text[0] in "()$" and "\n" not in text else 0
    opens, closes = re.match(r"\[|begin(?![A-Za-z])", text), re.match(r"\]|end(?![A-Za-z])", text)
    if (opens or closes) and not _BLANK_LINE.search(text):
        flags |= own & CLOSE or (OPEN if opens else CLOSE)  # a number of its own becomes 0
    flags |= DOLLARS if re.match(r"\$(?!\$)", text) else 0
    flags |= DIGITS if _is_digits(text) else 0
    flags |= DIGIT | DIGIT_2 if text[0].isdecimal() else 0
    return flags | (PARAGRAPH if "\n" in text and text.isspace() else 0)


def _is_digits(text: str) -> bool:
    """Digits, or indentation, or both."""
    return "\n" not in text and (not text.strip(" \t") or text.lstrip().isdecimal())


def _word(text: str) -> int:
    flags = NUMBER if "\n" not in text and text.lstrip().isdecimal() else 0
    before, word = _last_word(text)
    if _ABBREVIATION.fullmatch(word):
        flags |= WORD if not before else 0 if before.isalnum() else ABBREVIATION
    if _BEFORE_NUMBER.fullmatch(word) and not before.isalnum():
        flags |= NUMBERED if before else NUMBERED_WORD
    if len(word) == 1:
        flags |= LETTER if not before else ABBREVIATION if before == "." else 0
    return flags | (CLOSER if not text.strip(CLOSERS) else 0) | (BRACKET if not text.strip(RUN) else 0)


def _own(text: str) -> int:
    flags = DIGITS if _is_digits(text) else 0
    flags |= DIGIT | DIGIT_2 if text.lstrip(" \t")[:1].isdecimal() else 0
    flags |= PARAGRAPH if _BLANK_LINE.search(text) else 0
    if "\\" not in text and "$" not in text:
        return flags
    of_line = _LATEX.findall(text[text.rfind("\n") + 1 :])
    flags |= INLINE if sum(one in ("$", r"\(", r"\)") for one in of_line) % 2 else 0
    found = _LATEX.findall(_BLANK_LINE.split(text)[-1])
    opened = sum(one in (r"\[", r"\begin") for one in found) - sum(one in (r"\]", r"\end") for one in found)
    flags |= OPEN if opened > 0 else CLOSE if opened < 0 else 0
    return flags | (DOLLARS if found.count("$$") % 2 else 0)


def _edges(text: str) -> int:
    flags = (SPACE_FIRST if text[0].isspace() else 0) | (0 if _FIRST_RUN.match(text) else NO_RUN_FIRST)
    flags |= (LINE if "\n" in text else 0) | (TEXT if not text.isspace() else 0)
    if text.lstrip().isalnum():
        return flags
    run = text[len(text.rstrip(STOPS + WIDE_STOPS + CLOSERS)) :]
    stops = run.translate(_NO_CLOSERS)
    stopped = run.rstrip(CLOSERS)
    if any(stop in WIDE_STOPS for stop in stopped[len(stopped.rstrip(RUN)) :]):
        flags |= WIDE if not run[len(stopped) :].strip(BRACKETS) else 0  # before a mark it is INNER
    elif stops and not (stops == "." and _ends_short(text[: -len(run)])):
        flags |= STOP
    flags |= INNER if _INNER.search(text) else 0
    return flags | (DOT if _DOT.fullmatch(text) else 0)


_NO_CLOSERS = str.maketrans("", "", CLOSERS)


def _ends_short(text: str) -> bool:
    """The text before a dot is an abbreviation, all in one token."""
    return bool(_word(text) & (ABBREVIATION | WORD))


def _last_word(text: str) -> tuple[str, str]:
    """The ASCII letters that a text ends with, and the character before them."""
    found = _LAST_WORD.search(text)
    return (found[1], found[2]) if found else ("", "")
