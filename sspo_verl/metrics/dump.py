"""Extra fields for verl's rollout and validation dumps: each response's segments."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

from sspo_verl.metrics.counts import Segments
from sspo_verl.metrics.names import DUMP_FIELDS
from sspo_verl.segmenters import Segmenter

DIGITS = 4  # decimals of a number in a dump; significant digits of a divergence


class Record(NamedTuple):
    """DUMP_FIELDS of one response: number of segments; tokens, H, clip, ratio, A and divergences of the first ones."""

    segments: int | None = None
    tokens: list[int] | None = None
    entropy: list[float | None] | None = None  # None if not finite: JSON has no NaN
    clip: list[int] | None = None
    ratio: list[float | None] | None = None  # None as for entropy
    advantage: list[float | None] | None = None
    tv: list[float | None] | None = None
    kl: list[float | None] | None = None


UNKNOWN = Record()
Records = dict[str, list[Record]]  # by verl's session: the part of a row's key before the last "_"


def records(data: Any, rows: Segments, limit: int) -> Records:
    """Records of the rows of an actor's micro-batch. data: verl's TensorDict, of which uid and session_id are
    used; limit: how many segments to list per response."""
    found: Records = {}
    for i, (uid, session) in enumerate(zip(_values(data, "uid"), _values(data, "session_id"), strict=True)):
        lengths = rows.lengths[i]
        record = Record(
            segments=len(lengths),
            tokens=[int(n) for n in lengths[:limit]],
            entropy=None if rows.entropies is None else _rounded(rows.entropies[i][:limit]),
            clip=[int(c) for c in rows.clips[i][:limit]],
            ratio=_rounded(rows.ratios[i][:limit]),
            advantage=_rounded(rows.advantages[i][:limit]),
            tv=_significant(rows.tv[i][:limit]),
            kl=_significant(rows.kl[i][:limit]),
        )
        found.setdefault(f"{uid}_{session}", []).append(record)
    return found


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(value, DIGITS) if math.isfinite(value) else None for value in values.tolist()]


def _significant(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def _values(data: Any, name: str) -> list:
    values = data[name]
    return values.tolist() if hasattr(values, "tolist") else list(values)


def merge(parts: list[Records]) -> Records:
    """Merge the records of a step. If a response was used in several updates, its last record is kept. The records of
    one part (a micro-batch) belong to different responses."""
    merged: Records = {}
    for part in parts:
        for session, of_session in part.items():
            known = merged.setdefault(session, [])
            before = list(range(len(known)))  # records that this part has not replaced yet
            for record in of_session:
                same = [i for i in before if known[i][:2] == record[:2]]  # segments, tokens
                if same:
                    known[same[0]] = record
                    before.remove(same[0])
                else:
                    known.append(record)
    return merged


def fields(keys: list[str], outputs: list[str], known: Records, tokenizer, cut: Segmenter | None, limit: int) -> dict:
    """{field: values}, with one value per row of a dump.

    keys: verl's row keys, "{uid}_{session}_{index}". outputs: the responses' text. A row that no actor saw in this
    step (validation) gets its segments from its text, re-encoded, and no entropy, clip or ratio. If a session has
    several rows or records, they cannot be matched, and the fields are null. cut: the run's segmenter; None if it
    cannot segment text alone, which makes those fields null.
    """
    texts = [i for i, key in enumerate(keys) if _session(key) not in known]
    from_text = {} if cut is None else {i: _of_text(outputs[i], tokenizer, cut, limit) for i in texts}
    trajectories = Counter(map(_session, set(keys)))
    rows = []
    for i, key in enumerate(keys):
        candidates = [] if trajectories[_session(key)] > 1 else known.get(_session(key), [])
        candidates = [from_text[i]] if i in from_text else candidates
        rows.append(candidates[0] if len(candidates) == 1 else UNKNOWN)
    return {name: [row[i] for row in rows] for i, name in enumerate(DUMP_FIELDS)}


def _session(key: str) -> str:
    return key.rsplit("_", 1)[0]


def _of_text(text: str, tokenizer, cut: Segmenter, limit: int) -> Record:
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)], dtype=torch.int64)
    lengths = torch.bincount(cut(ids, torch.ones_like(ids), None)[0]).tolist() if ids.numel() else []
    return Record(segments=len(lengths), tokens=lengths[:limit])
