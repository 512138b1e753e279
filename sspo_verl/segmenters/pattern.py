"""Segmenter `regex`: cuts where a regular expression matches, for patterns that can be decided token by token."""

import re
from collections.abc import Iterable
from itertools import product

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import BLANK, ENDS_LINE, counted_text, flag_table, segment_ids

try:
    from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # Python 3.10
    import sre_parse as parser

HALF = "\ufffd"  # what a token with part of a character decodes to
LOOKS_AROUND = {"AT", "ASSERT", "ASSERT_NOT"}


@register_segmenter("regex", uses=("segment_regex",))
def regex(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment ends with each token whose text contains a match of `segment_regex`; blanks as in `line_break`.

    Only for patterns whose matches are single characters, regardless of context: then a match depends on one token, and
    the table over the vocabulary is exact. Raises ValueError for any other pattern, naming a token or pair of tokens
    for which it is not, and for a pattern that no token matches.
    """
    pattern, texts = re.compile(settings.segment_regex or ""), []  # never None: `uses`

    def flags(text: str, special: bool) -> int:
        text = counted_text(text, special)
        texts.append(text)
        return ENDS_LINE * (pattern.search(text) is not None) | BLANK * (not text.strip())

    table = flag_table(tokenizer, flags, BLANK, within_text=True)
    _check(pattern, texts, any_match=bool((table & ENDS_LINE).any()))
    return lambda token_ids, response_mask, entropy: segment_ids(token_ids, response_mask, table)


def _check(pattern: re.Pattern, texts: list[str], any_match: bool) -> None:
    characters = set().union(*texts)
    if not _is_one_character(pattern):
        why = (
            _offending(pattern, texts, characters)
            or "its matches are longer than one character or depend on other characters"
        )
    elif HALF in characters and pattern.fullmatch(HALF):
        why = "it matches parts of characters, which tokens may contain"
    elif not any_match:
        why = "no token contains a match, so there is nothing to cut at"
    else:
        return
    raise ValueError(
        f"segment_regex={pattern.pattern!r} cannot be decided token by token: {why}. Write a pattern whose every match "
        "is one character, whatever its neighbors, like '[;:]', or your own segmenter (docs/segments.md)."
    )


def _is_one_character(pattern: re.Pattern) -> bool:
    tree = parser.parse(pattern.pattern, pattern.flags)
    return tree.getwidth() == (1, 1) and not LOOKS_AROUND & {str(op) for op in _operations(tree)}


def _operations(part) -> Iterable:
    """All leaves (operations and their arguments) of a parsed pattern, which is nested tuples and lists."""
    if isinstance(part, parser.SubPattern | list | tuple):
        for inner in part:
            yield from _operations(inner)
    else:
        yield part


def _offending(pattern: re.Pattern, texts: list[str], characters: set[str]) -> str | None:
    """Describe a token or pair of tokens whose matches are not the characters that match by themselves, if any."""
    alone = {character for character in characters if pattern.fullmatch(character)}
    for text in texts:
        if _differs(pattern, text, alone):
            return f"in the token {text!r} its matches are not single characters"
    ascii_texts = [text for text in texts if len(text) == 1 and text.isascii()]
    for left, right in product(ascii_texts, repeat=2):
        if _differs(pattern, left + right, alone):
            return f"across the tokens {left!r} and {right!r} its matches differ from those within them"
    return None


def _differs(pattern: re.Pattern, text: str, alone: set[str]) -> bool:
    expected = [(i, i + 1) for i, character in enumerate(text) if character in alone]
    return [match.span() for match in pattern.finditer(text)] != expected
