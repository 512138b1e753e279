"""Real tokenizers, as fixtures that are built once a session (conftest.py), and random texts for them.

Qwen's byte-level one (the file in the package dashscope), Mistral's byte-level one (Tekken, in mistral_common) in
whose vocabulary 66 tokens have text after their line break, and Mistral's first sentencepiece one.
"""

import base64
from importlib.util import find_spec
from pathlib import Path

import pytest


def package_folder(name):
    # Found, not imported: dashscope itself needs packages that the file in it does not.
    return Path(find_spec(name).submodule_search_locations[0])


@pytest.fixture(scope="session")
def qwen_bytes():
    """The bytes of each of Qwen's base tokens, by id."""
    lines = (package_folder("dashscope") / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    tokens = [base64.b64decode(line.split()[0]) for line in lines]
    assert [int(line.split()[1]) for line in lines] == list(range(len(lines)))
    return tokens


@pytest.fixture(scope="session")
def qwen(qwen_bytes):
    """transformers' own Qwen tokenizer around the real vocabulary, with the tokens of the chat format."""
    # GPT-2's names for bytes: printable ones stand for themselves, the others are counted up from 256.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}

    def name(token):
        return "".join(names[byte] for byte in token)

    known = set(qwen_bytes)
    # Tiktoken merges the pair whose result comes first in the vocabulary: all pairs, in the order of their results.
    merges = [
        (name(token[:i]), name(token[i:]))
        for token in qwen_bytes
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
    ]
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab={name(token): i for i, token in enumerate(qwen_bytes)}, merges=merges)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    return tokenizer


@pytest.fixture(scope="session")
def tekken(tmp_path_factory):
    """Mistral's byte-level tokenizer: no Rust backend, and its `added_tokens_decoder` is a method."""
    folder = tmp_path_factory.mktemp("tekken")
    (folder / "tekken.json").symlink_to(package_folder("mistral_common") / "data" / "tekken_240911.json")
    from transformers import MistralCommonBackend

    return MistralCommonBackend.from_pretrained(folder)


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory):
    """Mistral's first tokenizer: sentencepiece, the line break is a byte token of its own."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "tokenizer.model").symlink_to(package_folder("mistral_common") / "data" / "tokenizer.model.v1")
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(folder)


def random_text(rng):
    """A few parts of maths, code, prose and nasty white space, in random order."""
    parts = [rng.choice((derivation, code, prose, white_space, latex))(rng) for _ in range(rng.randint(1, 6))]
    text = "".join(parts)
    return text.replace("\n", "\r\n") if rng.random() < 0.1 else text


def derivation(rng):
    a, b = rng.randint(0, 9999), rng.randint(0, 9999)
    lines = [f"{a}+{b}={a + b}", f"  = {a * b / 7:.3f}", f"x_{a % 10} \\le {b};", f"∴ {a}² ≥ {b}", f"- {a} / {b}:"]
    return "".join(
        rng.choice(lines) + rng.choice(("\n", "\n\n", ".\n", " \n", "\n\n\n")) for _ in range(rng.randint(1, 6))
    )


def code(rng):
    indent = rng.choice(("    ", "\t", "  "))
    lines = [
        f"def f{rng.randint(0, 99)}(x, y):",
        f"{indent}return [x[{rng.randint(0, 9)}] for _ in y]",
        f"{indent}{indent}if x != y: print('a\\n')",
        "#include <vector>",
        "int main() {",
        "// done",
        "});",
        "*/",
        "/* a comment",
        f"{indent}}}",
        "//",
        "/usr/bin",
        "```python",
        "",
        indent,
    ]
    return "\n".join(rng.choice(lines) for _ in range(rng.randint(1, 10))) + rng.choice(("", "\n"))


def prose(rng):
    words = ["Let", "the", "answer", "is", "größer", "漢字", "решение", "🎉", "n'est", "x", "42", "Therefore,", "(i)"]
    sentences = [" ".join(rng.choices(words, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 4))]
    return rng.choice((". ", ".\n", "!\n\n", "\n", ";\n\t")).join(sentences) + rng.choice(("", "\n", ".\n\n", "   "))


def latex(rng):
    return rng.choice(
        (
            "\\begin{align*}\n x &= \\frac{1}{2} \\\\\n   &\\le \\sqrt{3}\n\\end{align*}\n",
            "\\[\n\\sum_{i=1}^n i = \\frac{n(n+1)}{2}\n\\]\n\n",
            "So $\\boxed{" + str(rng.randint(0, 99)) + "}$.",
            "| a | b |\n|---|---|\n| 1 | 2 |\n",
        )
    )


def white_space(rng):
    return "".join(
        rng.choice(("\n", "\n\n", "\r\n", " ", "  ", "\t", "\u00a0", " \n")) for _ in range(rng.randint(0, 9))
    )
