"""Writes the parquet files of a generated task, in verl's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def verl_row(data_source: str, messages: list[dict[str, str]], answer: str, split: str, index: int) -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": messages,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"split": split, "index": index},
    }


def write_splits(folder: Path, splits: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, int]:
    """Write FOLDER/SPLIT.parquet; return the number of rows of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{split}.parquet")
    return {split: len(rows) for split, rows in splits.items()}
