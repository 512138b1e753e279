"""Segmenter `sentence`: cuts at stops and line breaks, except in numbers, abbreviations and LaTeX. Source: ours."""

import re
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int16, Shaped, UInt8
from torch import Tensor

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import counted_text, flag_table, ids_of_ends, look_up, number_at_last_event

Flags: TypeAlias = UInt8[Tensor, "batch length"]
Tokens: TypeAlias = Bool[Tensor, "batch length"]
STOPS, WIDE_STOPS = ".!?…", "。！？．｡"  # noqa: RUF001  must be followed by white space; need not be
# These belong to the sentence whose stop precedes them. A mark closes if white space follows; else it may open.
BRACKETS, MARKS = "”’)]}»」』）】》〉］｝", "\"'*_`$"  # noqa: RUF001
CLOSERS, RUN = BRACKETS + MARKS, STOPS + WIDE_STOPS + BRACKETS
_ABBREVIATION = re.compile(
    "Dr|Mr|Mrs|Ms|Prof|Sr|Jr|St|Fig|Figs|Eq|Eqs|Sec|Sect|Ch|Vol|Thm|Def|Prop|Cor|Ref|Refs|Ex|Inc|Ltd|Co|etc|vs|cf|al|"
    "approx|resp|viz|eg|ie|esp"
)
_BEFORE_NUMBER = re.compile("[Nn]os?|pp?")  # "No. 5", but "No. That is wrong."

# Each token has four bytes of flags, plus two more for its role as the left one of two neighbours. The first two bytes
# are rules on both neighbours: a flag counts only if the left one has it too (flags that depend on the right token only
# are set in every left one). The other two bytes are the token's own. First byte: what a token does together with the
# one before it; the third byte has the same layout for what it does by itself. OPEN and CLOSE share two bits that hold
# a number: 1, 0 or -1.
DOLLARS, INLINE, DIGITS, DIGIT, DIGIT_2, PARAGRAPH = (1 << k for k in range(6))
OPEN, CLOSE = 1 << 6, 3 << 6
# Second byte: whether the token can close a sentence after a STOP or a WIDE (same bits as those); and whether a dot
# after it belongs to a number (same bits as the DIGITS, DIGIT and DIGIT_2 that are needed) or to an abbreviation.
CLOSER, BRACKET, NUMBER, NUMBERED, NUMBERED_WORD, LETTER, ABBREVIATION, WORD = (1 << k for k in range(8))
# Fourth byte: what the text ends with, whether there is any, what it begins with (whether that lets a STOP or WIDE
# before it end a sentence; an INNER always does), and whether it has a line break.
STOP, WIDE, INNER, DOT, TEXT, SPACE_FIRST, NO_RUN_FIRST, LINE = (1 << k for k in range(8))

OF_ABBREVIATION = LETTER | ABBREVIATION | WORD
ANY_LEFT = (CLOSER | BRACKET | NUMBER | NUMBERED | ABBREVIATION) << 8
NO_WORD_LEFT = (WORD | NUMBERED_WORD) << 8 | ANY_LEFT
EDGE_LEFT = DIGITS | NO_WORD_LEFT  # for a masked token, and for what precedes the first token

# torch converts a Python number to a tensor at each use, which takes as long as the operation on a byte per token.
# These are created once, on the CPU (as torch would do), whatever the device of the other tensors.
BYTES = tuple(torch.tensor(k, dtype=torch.uint8, device="cpu") for k in range(256))

_CLOSERS = re.escape(CLOSERS)
_RUN = re.escape(RUN)
# A run of stops and brackets that contains a full-width stop ends a sentence at the end of the run. This matches a next
# token that continues the run and contains its end: at a full-width stop, a line break, white space or the token's end.
_FIRST_RUN = re.compile(rf"[{_RUN}]*[{WIDE_STOPS}]|[{_RUN}]+(?:\Z|\s*\n)|[{_RUN}]*[{STOPS}][{_CLOSERS}]*\s")
_INNER = re.compile(f"[{STOPS}][{_CLOSERS}]*\\s|[{WIDE_STOPS}][{_RUN}]*[^{_RUN}]")
_DOT = re.compile(rf"\.[{_CLOSERS}]*")
_LAST_WORD = re.compile(r"([^A-Za-z]?)([A-Za-z]+)\Z")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_LATEX = re.compile(r"\\(?:begin(?![A-Za-z])|end(?![A-Za-z])|.|\Z)|\$\$?", re.DOTALL)


@register_segmenter("sentence")
def sentence(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment ends after a stop with its closing quotes and brackets, and after a line break; see docs/segments.md.

    Blank and masked stretches as in `line_break`. Integer prefix scans only, so exact on every device.
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
    """True at each token after which a sentence ends, from the four bytes of flags."""
    run = edges ^ (_is_short(pairs, word, own) & (edges >> BYTES[3]))  # removes STOP from such a dot
    # Extend WIDE to the brackets and plain stops after it, and then STOP, of tokens without WIDE, to the closing quotes
    # and brackets after it.
    run |= _behind(run & BYTES[WIDE], word)
    run |= _behind(run & ~(run >> BYTES[1]) & BYTES[STOP], word)
    ends = (run & (_after(edges >> BYTES[5]) | BYTES[INNER])).bool().view(torch.uint8)
    line = edges >> BYTES[7]
    inline, display = _inside_latex(pairs, own, line)
    return (line | ends & ~inline) > display


def _behind(flag: Flags, closes: Flags) -> Flags:
    """Propagate a flag to the next one or two tokens, as long as they have it in `closes`."""
    first = _before(flag) & closes
    return first | _before(first) & closes


def _is_short(pairs: Flags, word: Flags, own: Flags) -> Flags:
    """1 where a dot would belong to an abbreviation, or to a number at the start of a line; else 0."""
    # One to three tokens of digits and white space between the start of the line and the dot.
    first = pairs & BYTES[DIGITS]
    of_line = first | _behind(first, own)
    # "No." and the like: the dot is followed by a digit, or by white space and a digit.
    number = _after(own | _after(pairs))
    word = _before(word & (of_line | BYTES[OF_ABBREVIATION | NUMBERED | NUMBERED_WORD]))
    return (word & (number | BYTES[OF_ABBREVIATION | NUMBER])).bool().view(torch.uint8)


def _inside_latex(pairs: Flags, own: Flags, line: Flags) -> tuple[Flags, Flags]:
    """Whether the end of each token is inside inline LaTeX, $...$ or \\(...\\) (bit 0 only), and inside display LaTeX,
    $$...$$, \\[...\\] or \\begin...\\end. An unclosed formula ends with its line or its paragraph, respectively."""
    changes = own ^ pairs
    toggles = changes & BYTES[INLINE]
    odd = toggles.cumsum(dim=1, dtype=torch.uint8)  # modulo 256 keeps the parity
    inline = (odd ^ number_at_last_event(odd ^ toggles, line)) >> BYTES[1]

    # "$x$$y$" is two adjacent formulas; and a $$ may consist of two tokens.
    dollars = own ^ changes & _before(inline)
    # Modulo 256: the depth, plus 128 where a $$ is open. Unambiguous up to a depth of 63.
    change = (changes.view(torch.int8) >> 6).view(torch.uint8) ^ (dollars << BYTES[7])
    so_far = change.cumsum(dim=1, dtype=torch.uint8)
    paragraph = ((own | pairs) & BYTES[PARAGRAPH]).bool()
    until = number_at_last_event(so_far - change, paragraph) - so_far  # of these 256 values, those over 64 are inside
    return inline, (until | until + BYTES[63]) >> BYTES[7]


def _before(values: Flags) -> Flags:
    """Value of the token before; 0 for the first."""
    return torch.nn.functional.pad(values, (1, -1))


def _after(values: Flags) -> Flags:
    """Value of the token after; 0 for the last."""
    return torch.nn.functional.pad(values, (-1, 1))


# The table


def flags_of(text: str, special: bool) -> tuple[int, int]:
    """Flags of a token's text: (two bytes as the left one of two neighbours, the other four bytes)."""
    text = counted_text(text, special)
    if not text:
        return NO_WORD_LEFT, DIGITS | DIGITS << 16 | (SPACE_FIRST | NO_RUN_FIRST) << 24
    own = _own(text)
    return _left(text), _pairs(text, own) | _word(text) << 8 | own << 16 | _edges(text) << 24


def _tables(tokenizer) -> tuple[Shaped[Tensor, " vocab"], tuple[Int16[Tensor, " kinds"], ...]]:
    """The kind of each token, and three tables of flags by kind: two bytes as the left neighbour, and twice two others.

    A kind is a distinct combination of flags. A vocabulary has fewer than 256, so that the large table has one byte per
    token; more also work. Kind 0 is for masked tokens, kind 1 for ids outside the vocabulary.
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
        flags |= own & CLOSE or (OPEN if opens else CLOSE)  # a token that has its own number gets 0
    flags |= DOLLARS if re.match(r"\$(?!\$)", text) else 0
    flags |= DIGITS if _is_digits(text) else 0
    flags |= DIGIT | DIGIT_2 if text[0].isdecimal() else 0
    return flags | (PARAGRAPH if "\n" in text and text.isspace() else 0)


def _is_digits(text: str) -> bool:
    """Whether the text is digits, or indentation, or both."""
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
        flags |= WIDE if not run[len(stopped) :].strip(BRACKETS) else 0  # followed by a mark, it is INNER
    elif stops and not (stops == "." and _ends_short(text[: -len(run)])):
        flags |= STOP
    flags |= INNER if _INNER.search(text) else 0
    return flags | (DOT if _DOT.fullmatch(text) else 0)


_NO_CLOSERS = str.maketrans("", "", CLOSERS)


def _ends_short(text: str) -> bool:
    """Whether the text before a dot is an abbreviation, all in one token."""
    return bool(_word(text) & (ABBREVIATION | WORD))


def _last_word(text: str) -> tuple[str, str]:
    """The ASCII letters that a text ends with, and the character before them."""
    found = _LAST_WORD.search(text)
    return (found[1], found[2]) if found else ("", "")
