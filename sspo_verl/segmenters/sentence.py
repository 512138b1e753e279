"""Segmenter `sentence`: at stops and line breaks, but not in numbers, behind abbreviations and inside LaTeX. Ours."""

import re
from typing import TypeAlias

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import counted_text, flag_table, ids_of_ends, number_at_last_event

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

# A token has two words of 32 flags, as the right and as the left of two neighbours. A rule on two neighbours is a flag
# that both have; the others are the right's own, and every left has them. By bytes: rules on LaTeX and on digits,
ESCAPED_INLINE, ESCAPED_OPEN, ESCAPED_CLOSE, SPLIT_DOLLARS = (1 << k for k in range(4))
FIRST_OF_LINE, INDENTED_DIGIT, INDENTED_DIGIT_2, BLANK_LINE = (1 << k for k in range(4, 8))
# before a dot, what makes it one of an abbreviation or a number (the last three are the token's own),
ABBREVIATION, WORD, LETTER, NUMBERED, NUMBERED_WORD, NUMBER, DIGIT, DIGIT_2 = (1 << k for k in range(8))
# LaTeX (the first three as those above), white space, and digits or indentation,
INLINE, OPEN, CLOSE, DOLLARS, BLANK, LINE, PARAGRAPH, DIGITS = (1 << k for k in range(8))
# what its text ends with, whether it goes on behind a stop and behind a wide one, and what it begins with.
STOP, WIDE, INNER, DOT, CLOSER, BRACKET, SPACE_FIRST, NO_RUN_FIRST = (1 << k for k in range(8))

ANY_LEFT = (ABBREVIATION | NUMBERED | NUMBER | DIGIT | DIGIT_2) << 8 | 0xFFFF0000
NO_WORD_LEFT = (WORD | NUMBERED_WORD) << 8 | ANY_LEFT
EDGE_LEFT = FIRST_OF_LINE | NO_WORD_LEFT  # of a masked token, and of the first one's

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
    words = flag_table(tokenizer, lambda *token: _as_int64(flags_of(*token)), UNKNOWN, torch.int64, within_text=True)
    table = torch.nn.functional.pad(torch.nn.functional.pad(words, (1, 1), value=UNKNOWN), (1, 0), value=MASKED)

    def cut(token_ids, response_mask, entropy):
        if token_ids.numel() == 0:
            return token_ids.long()
        valid = response_mask.bool()
        index = token_ids.long().clamp(-1, table.numel() - 3).int().add_(2).mul_(valid)
        both = table.to(token_ids.device).index_select(0, index.reshape(-1)).view(token_ids.shape)
        left = torch.nn.functional.pad((both >> 32).int()[:, :-1], (1, 0), value=_as_int32(EDGE_LEFT))
        flags = both.int() & left
        pairs, word, own, edges = (_byte(flags, k) for k in range(4))
        return ids_of_ends(valid, valid & ~_is(own, BLANK), valid & _sentence_ends(pairs, word, own, edges))

    return cut


def _sentence_ends(pairs: Flags, word: Flags, own: Flags, edges: Flags) -> Tokens:
    """True after which a sentence ends, and where masked. By the four bytes of flags."""
    inline, display = _inside_latex(pairs, own)
    run = edges ^ (_is_short(pairs, word, own) & (edges >> 3))  # a dot has STOP: taken from it
    # WIDE also for up to two tokens of brackets and plain stops behind it, which are no STOP then; and STOP for up to
    # two of closing quotes and brackets.
    closes = (edges >> 4) & 3
    behind = _before(run) & closes & WIDE
    run = run | behind | (_before(behind) & closes)
    run = run ^ (run >> 1 & run & STOP)
    behind = _before(run) & closes & STOP
    run = run | behind | (_before(behind) & closes)
    ends = (run & (_after(edges) >> 6 | INNER) & 7) + 7 >> 3
    return ((own >> 5 | ends & ~inline) & ~display & 1).view(torch.bool)


def _is_short(pairs: Flags, word: Flags, own: Flags) -> Flags:
    """1 where a dot would be that of an abbreviation, or of a number that a line begins with; else 0."""
    # No. and the like: before a digit, or white space and a digit.
    number = _after(word | _after(pairs << 1)) >> 3 & (NUMBERED | NUMBERED_WORD)
    # Between the dot and the start of its line are one to three tokens of digits and white space.
    first = pairs << 3
    second = _before(first) & own
    third = _before(second) & own
    of_line = _before(first | second | third) >> 2 & NUMBER
    return (_before(word) & (number | of_line | (ABBREVIATION | WORD | LETTER))) + 63 >> 6


def _inside_latex(pairs: Flags, own: Flags) -> tuple[Flags, Flags]:
    """1 after which one is inside $...$ or \\(...\\) of this line; inside $$...$$, \\[...\\], \\begin...\\end of this
    paragraph. A formula that is not closed so reaches no further."""
    changes = own ^ (pairs & (INLINE | OPEN | CLOSE))
    toggles = changes & 1
    odd = toggles.cumsum(dim=1, dtype=torch.uint8) & 1  # modulo 256 leaves that as it is
    inline = odd ^ number_at_last_event(odd ^ toggles, own >> 5 & 1, 2)

    # "$x$$y$" is of two formulas beside each other; and a $$ may be of two tokens.
    was = _before(inline)
    dollars = (own >> 3 & (was ^ 1)) | (pairs >> 3 & was)
    # Modulo 256: the depth, and 128 where a $$ is open. Up to 63 deep it says which.
    change = (dollars << 7) + (changes >> 1 & 1) - (changes >> 2 & 1)
    so_far = change.cumsum(dim=1, dtype=torch.uint8)
    since = so_far - number_at_last_event(so_far - change, (own >> 6 | pairs >> 7) & 1, 256) + 64
    return inline, (since | (since & 127) + 63) >> 7


def _byte(flags: Tensor, k: int) -> Flags:
    return (flags >> 8 * k).to(torch.uint8)  # modulo 256


def _is(byte: Flags, flag: int) -> Tokens:
    return ((byte >> flag.bit_length() - 1) & 1).view(torch.bool)


def _before(values: Flags) -> Flags:
    """What the token before has; 0 for the first."""
    return torch.nn.functional.pad(values[:, :-1], (1, 0))


def _after(values: Flags) -> Flags:
    """What the token after has; 0 for the last."""
    return torch.nn.functional.pad(values[:, 1:], (0, 1))


# The table


def flags_of(text: str, special: bool) -> tuple[int, int]:
    """The two words of a token's text: (as the left of two neighbours, as the right)."""
    text = counted_text(text, special)
    if not text:
        return NO_WORD_LEFT, FIRST_OF_LINE | (BLANK | DIGITS) << 16 | (SPACE_FIRST | NO_RUN_FIRST) << 24
    pairs, word, own = _pairs(text), _word(text), _own(text)
    return _left(text), pairs | word << 8 | own << 16 | _edges(text) << 24


def _as_int64(words: tuple[int, int]) -> int:
    return _signed(words[0] << 32 | words[1], 64)


def _as_int32(word: int) -> int:
    return _signed(word, 32)


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> bits - 1 else number


UNKNOWN = _as_int64(flags_of("", True))
MASKED = _as_int64((EDGE_LEFT, (BLANK | LINE | PARAGRAPH) << 16))


def _left(text: str) -> int:
    flags = ANY_LEFT | (0 if text[-1].isalnum() else NO_WORD_LEFT) | (LETTER << 8 if text[-1] == "." else 0)
    if (_LATEX.findall(text) or [""])[-1] == "\\":
        flags |= ESCAPED_INLINE | ESCAPED_OPEN | ESCAPED_CLOSE
    flags |= SPLIT_DOLLARS if re.search(r"(?<![$\\])\$\Z", text) else 0
    flags |= INDENTED_DIGIT | INDENTED_DIGIT_2 if not text.strip(" \t") else 0
    if "\n" in text:
        flags |= BLANK_LINE
        flags |= FIRST_OF_LINE if not text[text.rfind("\n") :].strip(" \t\n0123456789") else 0
    return flags


def _pairs(text: str) -> int:
    flags = ESCAPED_INLINE if text[0] in "()$" and "\n" not in text else 0
    if not _BLANK_LINE.search(text):
        flags |= ESCAPED_OPEN if re.match(r"\[|begin(?![A-Za-z])", text) else 0
        flags |= ESCAPED_CLOSE if re.match(r"\]|end(?![A-Za-z])", text) else 0
    flags |= SPLIT_DOLLARS if re.match(r"\$(?!\$)", text) else 0
    flags |= FIRST_OF_LINE if _is_digits(text) else 0
    flags |= INDENTED_DIGIT | INDENTED_DIGIT_2 if text[0].isdecimal() else 0
    return flags | (BLANK_LINE if "\n" in text and text.isspace() else 0)


def _is_digits(text: str) -> bool:
    """Digits, or indentation, or both."""
    return "\n" not in text and (not text.strip(" \t") or text.lstrip().isdecimal())


def _word(text: str) -> int:
    flags = NUMBER if "\n" not in text and text.lstrip().isdecimal() else 0
    flags |= DIGIT | DIGIT_2 if text.lstrip(" \t")[:1].isdecimal() else 0
    before, word = _last_word(text)
    if _ABBREVIATION.fullmatch(word):
        flags |= WORD if not before else 0 if before.isalnum() else ABBREVIATION
    if _BEFORE_NUMBER.fullmatch(word) and not before.isalnum():
        flags |= NUMBERED if before else NUMBERED_WORD
    if len(word) == 1:
        flags |= LETTER if not before else ABBREVIATION if before == "." else 0
    return flags


def _own(text: str) -> int:
    flags = (BLANK if text.isspace() else 0) | (LINE if "\n" in text else 0) | (DIGITS if _is_digits(text) else 0)
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
    if run == text:
        flags |= (DOT if _DOT.fullmatch(text) else 0) | (CLOSER if not stops else 0)
        flags |= BRACKET if not text.strip(RUN) else 0
    return flags


_NO_CLOSERS = str.maketrans("", "", CLOSERS)


def _ends_short(text: str) -> bool:
    """The text before a dot is an abbreviation, all in one token."""
    return bool(_word(text) & (ABBREVIATION | WORD))


def _last_word(text: str) -> tuple[str, str]:
    """The ASCII letters that a text ends with, and the character before them."""
    found = _LAST_WORD.search(text)
    return (found[1], found[2]) if found else ("", "")
