r"""Parses the structure of a tidy text, before its parts are read as mathematics: lists, sets, relations, leaves.

1, 2 \text{ or } 3          Items(",", [...]), joined by "," "and" or "or"
(a, b)  [a, b)  \{a, b\}    Items with their brackets
1 < x \le 2   f(x) = 2x     Chain
A \cup B, \mathbb{R} \setminus A     Sets
\{x \mid x > 1\}            Builder
anything else               Leaf
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache

from sspo_verl.reward.numbers import GROUPED
from sspo_verl.reward.tidy import canonical, tidy


@dataclass(frozen=True)
class Leaf:
    text: str


@dataclass(frozen=True)
class Items:
    """A list. left, right: the brackets, "" for none. joins: what separates the items, out of "," "and" "or"."""

    items: tuple
    left: str = ""
    right: str = ""
    joins: frozenset[str] = frozenset()
    text: str = ""


@dataclass(frozen=True)
class Chain:
    """A chain of relations: sides[0] signs[0] sides[1] signs[1] ..."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Sets:
    """Set operations: first, then (sign, node) from left to right: \\cup, \\cap, \\setminus."""

    parts: tuple
    signs: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Builder:
    """Set builder {bound | condition}; domain: the text of it in {x in domain | condition}."""

    bound: str
    domain: str
    condition: Leaf | Items | Chain | Sets | Builder
    text: str = ""


Node = Leaf | Items | Chain | Sets | Builder

_OPEN = re.compile(r"\\[{(]|\\langle(?![a-zA-Z])|\\begin\{[a-z]+\*?\}|\\l(?:floor|ceil)(?![a-zA-Z])|[(\[{]")
_CLOSE = re.compile(r"\\[})]|\\rangle(?![a-zA-Z])|\\end\{[a-z]+\*?\}|\\r(?:floor|ceil)(?![a-zA-Z])|[)\]}]")
_JOIN = re.compile(
    r"\\text\{[,;]?\s*(?P<text>and|or|AND|OR),?\s*\}|(?<![A-Za-z\\])(?P<plain>and|or|AND|OR)(?![A-Za-z])"
    r"|\\(?P<logic>lor|land)(?![a-zA-Z])|(?P<mark>[,;])|(?P<chinese>[或且和])"
)
_SIGN = re.compile(r"\\(?:le|ge|ne|approx|in|notin|equiv|subset|subseteq|sim|cong|to)(?![a-zA-Z])|[=<>]")
_SET_SIGN = re.compile(r"\\(?:cup|cap|setminus|backslash)(?![a-zA-Z])")
_SUCH_THAT = re.compile(r"\\mid(?![a-zA-Z])|\||:(?!=)|\\colon(?![a-zA-Z])")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])\s*")
_BRACKETS = (("\\{", "\\}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"), ("\\langle", "\\rangle"))
_SETS_OF_NUMBERS = re.compile(r"\\mathbb\{[RZNQC]\}(?:\s*\^\s*(?:[+*]|\{[+*]\})|_\s*(?:[+]|\{[+]\}))?|\\emptyset")
_LOGIC = {"lor": "or", "land": "and", "或": "or", "且": "and", "和": "and", ";": ";", ",": ","}
INEQUALITIES = frozenset(("<", ">", r"\le", r"\ge", r"\ne"))
_IN_WORDS = {
    r"\mathbb{R}": "all real numbers|all reals|all real values|real numbers|the real numbers"
    "|the set of all real numbers|all real numbers x|all real x|every real number|全体实数",
    r"\mathbb{Z}": "all integers|the integers|the set of all integers|every integer",
    r"\emptyset": "empty set|the empty set|no solution|no solutions|no real solution|no real solutions",
}
_SPOKEN = {phrase: text for text, phrases in _IN_WORDS.items() for phrase in phrases.split("|")}


@lru_cache(maxsize=1024)
def read(text: str, within: bool = False) -> Node:
    """Parse a tidy text. within: in brackets, where 1,234 is two entries unless others are separated by a space."""
    text = _outside_braces(text.strip())
    if spoken := _SPOKEN.get(re.sub(r"\\text\{([^{}]*)\}", r"\1", text).lower().strip()):
        return Leaf(spoken)
    if (marks := _top(text, _JOIN, thousands=not within or ", " in text)) is None:
        return Leaf(text)
    if marks:
        return _joined(text, marks)
    return _single(text)


def _joined(text: str, marks: list[re.Match]) -> Node:
    if any(mark["mark"] == ";" for mark in marks) and any(mark["mark"] == "," for mark in marks):
        marks = [mark for mark in marks if mark["mark"] != ","]  # 1, 2; 3, 4: the groups are ordered
        groups = [read(part) for part in _parts(text, marks)]
        ordered = tuple(
            Items(g.items, "(", ")", text=g.text) if isinstance(g, Items) and not g.left else g for g in groups
        )
        return Items(ordered, joins=frozenset(","), text=text)
    names = [_join(mark) for mark in marks]
    if "or" in names and (cases := _cases(text, marks, names)):
        return cases
    nodes: list[Node] = []
    joins: set[str] = set()
    pending = ","
    for part, before in zip(_parts(text, marks), [",", *names], strict=True):
        pending = before if before in ("and", "or") or pending not in ("and", "or") else pending
        if not part.strip():
            continue
        if nodes:
            joins.add("," if pending == ";" else pending)
        nodes.append(read(part))
        pending = ","
    if len(nodes) == 1:
        return nodes[0]
    items = itertools.chain(*(_members(node, joins) for node in nodes))
    return Items(tuple(items), joins=frozenset(joins), text=text)


def _join(mark: re.Match) -> str:
    name = next(name for name in mark.groups("") if name)
    return _LOGIC.get(name, name).lower()


def _members(node: Node, joins: set[str]) -> tuple[Node, ...]:
    """Flatten a list within another if the joins allow: (x = 1 and y = 2) or x = 3 has two members, not three."""
    if isinstance(node, Items) and not node.left and (node.joins <= {","} or node.joins == joins):
        return node.items
    return (node,)


def _cases(text: str, marks: list[re.Match], names: list[str]) -> Node | None:
    """x = 1, y = 2 or x = 3, y = 4: group what is between two `or`, if every case consists of equations."""
    cases = [read(part) for part in _parts(text, [m for m, name in zip(marks, names, strict=True) if name == "or"])]
    if len(cases) > 1 and all(isinstance(case, Items) and _are_equations(case.items) for case in cases):
        return Items(tuple(cases), joins=frozenset(("or",)), text=text)
    return None


def _are_equations(items: tuple) -> bool:
    return len(items) > 1 and all(isinstance(item, Chain) and set(item.signs) == {"="} for item in items)


def _single(text: str) -> Node:
    signs = _top(text, _SIGN)
    if signs is None:
        return Leaf(text)
    if (found := _PLUS_MINUS.match(text)) and found[1] == "pm":
        point = read(text[found.end() :])
        if isinstance(point, Items) and point.left == "(":
            opposite = ",".join(f"-({item.text})" for item in point.items)
            return Items((point, read(f"({opposite})")), joins=frozenset(","), text=text)
    is_braced = text.startswith(r"\{") and _is_one_group(text, r"\{", r"\}")
    if not is_braced and _PLUS_MINUS.search(text) and (both := plus_minus(text)):
        return Items(tuple(read(one) for one in both), joins=frozenset(","), text=text)
    if signs:
        sides = tuple(part.strip() for part in _parts(text, signs))
        return Chain(sides, tuple(sign.group() for sign in signs), text) if all(sides) else Leaf(text)
    if unions := _top(text, _SET_SIGN):
        parts = tuple(read(part) for part in _parts(text, unions))
        names = tuple(sign.group().replace("backslash", "setminus") for sign in unions)
        return Sets(parts, names, text) if all(is_set(part) for part in parts) else Leaf(text)
    minus = re.fullmatch(r"(\\mathbb\{[RZNQC]\})\s*-\s*(\\\{.*\})", text)
    if minus:
        return Sets((Leaf(minus[1]), read(minus[2])), (r"\setminus",), text)
    return _bracketed(text)


def _bracketed(text: str) -> Node:
    for left, right in _BRACKETS:
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left) + len(right):
            inner = text[len(left) : len(text) - len(right)].strip()
            if _is_one_group(text, left, right):
                break
    else:
        return Leaf(text)
    if left == r"\{":
        if not inner:
            return Leaf(r"\emptyset")
        if found := _top(inner, _SUCH_THAT):
            return _builder(inner, found, text)
    content = read(inner, within=True)
    if isinstance(content, Items) and not content.left and content.joins <= {","}:
        return Items(content.items, left, right, text=text)
    if left == r"\{":
        return Items((content,), left, right, text=text)
    if left == "(" and right == ")" and not isinstance(content, Leaf):
        return content
    return Leaf(text)


def _builder(inner: str, found: list[re.Match], text: str) -> Node:
    if len(found) == 3 and all(mark.group() == "|" for mark in found):  # {x | |x| > 1}
        found = found[:1]
    bound, condition = inner[: found[0].start()].strip(), inner[found[0].end() :].strip()
    if not bound or not condition:
        return Leaf(text)
    domain = ""
    if (signs := _top(bound, _SIGN)) and len(signs) == 1 and signs[0].group() == r"\in":
        bound, domain = (part.strip() for part in _parts(bound, signs))
    return Builder(bound, domain, read(condition), text)


def is_set(node: Node) -> bool:
    """True if a node is written as a set: an interval, braces, a set of numbers, or a combination of those."""
    if isinstance(node, Leaf):
        return bool(_SETS_OF_NUMBERS.fullmatch(node.text))
    if isinstance(node, Items):
        return node.left == r"\{" or (node.left in ("(", "[") and len(node.items) == 2)
    return isinstance(node, Sets | Builder)


def is_interval(node: Node) -> bool:
    """True if a node is certainly an interval: it has two entries and a square bracket."""
    return isinstance(node, Items) and len(node.items) == 2 and "[" in node.left + node.right.replace("]", "[")


def plus_minus(text: str) -> list[str]:
    r"""The texts that one with \pm stands for. If it also has \mp, the signs are coupled; else each \pm is separate."""
    signs = _PLUS_MINUS.findall(text)
    if "mp" in signs:
        return [_signed(text, pm="+", mp="-"), _signed(text, pm="-", mp="+")]
    if len(signs) > 4:
        return []
    texts = [text]
    for _ in signs:
        texts = [_PLUS_MINUS.sub(sign, one, count=1) for one in texts for sign in "+-"]
    return texts


def _signed(text: str, **signs: str) -> str:
    return _PLUS_MINUS.sub(lambda found: signs[found[1]], text)


def has_ellipsis(text: str) -> bool:
    return r"\ldots" in text


def _outside_braces(text: str) -> str:
    for _ in range(5):
        if not (text.startswith("{") and text.endswith("}") and _is_one_group(text, "{", "}")):
            break
        text = text[1:-1].strip()
    return text


def _is_one_group(text: str, left: str, right: str) -> bool:
    r"""True if the bracket at the start of the text is closed by the one at its end."""
    depth, position = 0, 0
    while position < len(text):
        if found := _OPEN.match(text, position):
            depth += 1
        elif found := _CLOSE.match(text, position):
            depth -= 1
            if depth <= 0:
                return depth == 0 and position == len(text) - len(right)
        position = found.end() if found else position + (2 if text[position] == "\\" else 1)
    return False


def _top(text: str, pattern: re.Pattern, thousands: bool = False) -> list[re.Match] | None:
    """Matches of a pattern outside of all brackets; None if the brackets are unbalanced."""
    safe = [found.span() for found in GROUPED.finditer(text)] if thousands else []
    matches, depth, position = [], 0, 0
    while position < len(text):
        if depth == 0 and (found := pattern.match(text, position)):
            if not any(start <= position < end for start, end in safe):
                matches.append(found)
            position = found.end()
            continue
        if found := _OPEN.match(text, position):
            depth += 1
        elif found := _CLOSE.match(text, position):
            depth -= 1
            if depth < 0:
                return None
        else:
            found = re.compile(r"\\[a-zA-Z]+|\\?.", re.DOTALL).match(text, position)
        position = found.end() if found else position + 1
    return matches if depth == 0 else None


def _parts(text: str, marks: list[re.Match]) -> list[str]:
    ends = [0, *(end for mark in marks for end in mark.span()), len(text)]
    return [text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True)]


def same_text(one: str, other: str) -> bool:
    return canonical(tidy(one)) == canonical(tidy(other))
