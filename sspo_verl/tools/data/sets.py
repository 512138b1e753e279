"""The published sets: their number of rows, their place on the hub, and their file names on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Hub:
    id: str
    split: str
    config: str | None = None


@dataclass(frozen=True)
class PublishedSet:
    """A published set. name: verl's data_source. files: lower-case names without suffix; `a/b` is b in a folder a."""

    name: str
    title: str
    split: str
    rows: int
    hub: Hub
    files: tuple[str, ...]


MATH = PublishedSet(
    "math", "MATH", "train", 7500, Hub("DigitalLearningGmbH/MATH-lighteval", "train"), ("math/train", "math_train")
)

EVALUATION = {
    each.name: each
    for each in (
        PublishedSet(
            "math500", "MATH-500", "test", 500, Hub("HuggingFaceH4/MATH-500", "test"), ("math500", "math-500", "math")
        ),
        PublishedSet(
            "aime24", "AIME 2024", "test", 30, Hub("HuggingFaceH4/aime_2024", "train"), ("aime24", "aime_2024", "aime")
        ),
        PublishedSet("amc23", "AMC, the 40", "test", 40, Hub("math-ai/amc23", "test"), ("amc23",)),
        PublishedSet("amc", "AMC, the 83", "test", 83, Hub("AI-MO/aimo-validation-amc", "train"), ("amc", "amc83")),
        PublishedSet(
            "minerva", "Minerva", "test", 272, Hub("math-ai/minervamath", "test"), ("minerva", "minerva_math")
        ),
        PublishedSet(
            "olympiadbench",
            "OlympiadBench",
            "test",
            675,
            Hub("zwhe99/simplerl-OlympiadBench", "test"),
            ("olympiadbench", "olympiad_bench"),
        ),
        PublishedSet(
            "gsm8k", "GSM8K", "test", 1319, Hub("openai/gsm8k", "test", "main"), ("gsm8k/test", "gsm8k_test", "gsm8k")
        ),
    )
}


def stem(path: Path) -> str:
    return path.name[: -len(next(end for end in SUFFIXES if path.name.endswith(end)))].lower()


def is_file_of(path: Path, published: PublishedSet) -> bool:
    names = (stem(path), f"{path.resolve().parent.name.lower()}/{stem(path)}")
    return any(name in published.files for name in names)
