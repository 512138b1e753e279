"""verl's layout, with one schema for all our files, so that verl can concatenate any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sspo_verl.tools.data.record import Record
from sspo_verl.tools.data.sets import PublishedSet
from sspo_verl.tools.data.template import messages


def verl_row(record: Record, index: int, published: PublishedSet, template: str) -> dict[str, Any]:
    """A row in verl's layout. index: its position in the output file; source_row is its line or row in the source."""
    return {
        "data_source": published.name,
        "prompt": messages(record.problem, template),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": record.answer},
        "extra_info": {
            "split": published.split,
            "index": index,
            "level": record.level,
            "type": record.type,
            "template": template,
            "source": record.raw.source,
            "source_row": record.raw.row,
        },
    }


def table(records: Sequence[Record], published: PublishedSet, template: str):
    """A pyarrow table. The schema is explicit; otherwise a set without levels would get a column of another type."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    extra = {"split": text, "index": number, "level": number, "type": text, "template": text}
    schema = pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct({**extra, "source": text, "source_row": number}),
        }
    )
    rows = [verl_row(record, index, published, template) for index, record in enumerate(records)]
    return pa.Table.from_pylist(rows, schema=schema)
