"""Makes the sets of `sspo data`; each function writes its files and returns its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sspo_verl.tools.data import instruction, source
from sspo_verl.tools.data.layout import table
from sspo_verl.tools.data.record import Record
from sspo_verl.tools.data.same import duplicates, overlap
from sspo_verl.tools.data.sets import EVALUATION, MATH, PublishedSet
from sspo_verl.tools.data.source import Loaded
from sspo_verl.tools.data.write import refuse_existing, write_all

FIRST = 5  # rows of each kind that a report names


def math(
    levels: frozenset[int],
    sources: Sequence[str],
    against: Sequence[str],
    template: str,
    out: Path,
    drop: frozenset[str] = frozenset(),
    force: bool = False,
) -> dict[str, Any]:
    """MATH's train split at these levels. drop: which of `duplicates` and `overlap` to remove, not just report."""
    refuse_existing([out / "train.parquet"], force)
    if sources:
        paths = [source.math_file(each, out) for each in sources]
        loaded = [source.from_file(MATH, path) for path in paths]
    else:
        loaded = [source.from_hub(MATH)]
    against = against or [each for each in sources if source.holds_evaluation(each, out)]
    evaluation = source.load_evaluation(against, out) if against or not sources else []

    if "overlap" in drop and not evaluation:
        raise FileNotFoundError("--drop-overlap needs --against: there is no evaluation set to check for overlap.")

    notes = [note for one in loaded for note in _shared_instruction(one, template)]
    records = [record for one in loaded for record in one.records]
    chosen = [record for record in records if record.level in levels]
    answered, entry = _answered(chosen)
    same = duplicates(answered)
    also = {one.published.name: overlap(answered, one.records) for one in evaluation}
    left_out: set[str] = set()
    if "duplicates" in drop:
        left_out |= {record.raw.where for record in same.later}
    if "overlap" in drop:
        left_out |= {record.raw.where for found in also.values() for record, _ in found}
    kept = [record for record in answered if record.raw.where not in left_out]
    if not kept:
        origins = ", ".join(one.origin for one in loaded)
        if records and all(record.level is None for record in records):
            raise ValueError(
                f"{origins}: none of the {len(records):,} rows has a level (1 to 5, in a column `level` or in "
                "extra_info.level), so --levels cannot choose. Use a copy of MATH that has its levels."
            )
        raise ValueError(
            f"{origins}: no row with an answer is at the levels {_listed(levels)}. Choose others with --levels."
        )
    (path,) = _write(out, {"train.parquet": (kept, MATH)}, template, force)
    report = {
        "from": [one.origin for one in loaded],
        "read": len(records),
        "levels": sorted(levels),
        "at_levels": len(chosen),
        "by_level": {str(level): count for level, count in sorted(Counter(r.level for r in chosen).items())},
        "without_level": _named([record for record in records if record.level is None]),
        **entry,
        "instructions": _instructions(answered),
        "duplicates": _duplicates(same),
        "overlap": {name: _overlap(found) for name, found in also.items()},
        "dropped": {name: name in drop for name in ("duplicates", "overlap")},
        "written": len(kept),
        "file": str(path),
    }
    notes += [_count_note(one) for one in loaded] if len(loaded) == 1 else []
    if not evaluation:
        notes.append("Overlap was not checked: --against names no evaluation set.")
    return _report("math", template, {"math": report}, notes, [one.origin for one in evaluation])


def evaluation(
    names: Sequence[str], sources: Sequence[str], template: str, out: Path, force: bool = False
) -> dict[str, Any]:
    """The evaluation sets, or those with these names. Only rows without an answer are left out."""
    sure = names or (() if sources else EVALUATION)  # to be written whatever the sources contain
    refuse_existing([out / f"{name}.parquet" for name in sure], force)
    loaded = source.load_evaluation(sources, out, names or EVALUATION)
    missing = [name for name in names or EVALUATION if name not in {one.published.name for one in loaded}]
    if names and missing:
        raise FileNotFoundError(f"No file of {', '.join(missing)} is in {', '.join(sources)}. Name one as SET=FILE.")
    reports, files, notes = {}, {}, []
    for one in loaded:
        answered, entry = _answered(one.records)
        if not answered:
            raise ValueError(f"{one.origin} has no row with an answer: add the answers, or leave that set out.")
        same = duplicates(answered)
        others = [other for other in loaded if other is not one]
        shared = {other.published.name: overlap(answered, other.records) for other in others}
        several = [record for record in answered if record.alternatives]
        name = one.published.name
        notes += _shared_instruction(one, template)
        files[f"{name}.parquet"] = (answered, one.published)
        reports[name] = {
            "from": [one.origin],
            "not_read": [str(path) for path in one.passed_over],
            "read": len(one.records),
            **entry,
            "several_notations": _named(several),
            "instructions": _instructions(answered),
            "duplicates": _duplicates(same),
            "overlap": {other: _overlap(found) for other, found in shared.items() if found},
            "written": len(answered),
            "file": str(out / f"{name}.parquet"),
        }
        notes.append(_count_note(one))
        if several:
            notes.append(f"{name}: {len(several)} rows give their answer in several notations; the first is kept.")
    if missing:
        notes.append(f"Not in {', '.join(sources)}, so not written: {', '.join(missing)}.")
    _write(out, files, template, force)
    return _report("eval", template, reports, notes, [])


def arithmetic(out: Path, force: bool = False) -> dict[str, Any]:
    """The quickstart's data: what `scripts/quickstart.sh` trains on, byte for byte."""
    from sspo_verl.tools.tasks import arithmetic as task

    return _generated("arithmetic", task.DATA_SOURCE, task.write_parquet, out, force)


def counting(out: Path, force: bool = False) -> dict[str, Any]:
    """Training data of recipes/smollm2_135m.yaml."""
    from sspo_verl.tools.tasks import counting as task

    return _generated("counting", task.DATA_SOURCE, task.write_parquet, out, force)


def _generated(
    command: str, data_source: str, write_parquet: Callable[[Path], dict[str, int]], out: Path, force: bool
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    splits = ("train", "test")
    names = [f"{split}.parquet" for split in splits]
    paths = write_all(out, names, lambda folder: counts.update(write_parquet(folder)), force)
    reports = {
        f"{data_source} ({split})": {
            "from": ["made"],
            "read": counts[split],
            "written": counts[split],
            "file": str(path),
        }
        for split, path in zip(splits, paths, strict=True)
    }
    return _report(command, None, reports, [], [])


def _listed(levels: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(levels)))


def _answered(records: Sequence[Record]) -> tuple[list[Record], dict[str, Any]]:
    without = [record for record in records if not record.answer]
    return [record for record in records if record.answer], {"without_answer": _named(without)}


def _named(records: Sequence[Record]) -> dict[str, Any]:
    return {"n": len(records), "first": [record.raw.where for record in records[:FIRST]]}


def _instructions(records: Sequence[Record]) -> dict[str, Any]:
    """Texts that were removed from problems, most frequent first."""
    found = Counter(record.instruction for record in records if record.instruction)
    return {"n": found.total(), "text": found.most_common(1)[0][0] if found else None}


def _shared_instruction(one: Loaded, template: str) -> list[str]:
    """Raise ValueError if the problems contain an unknown instruction, to which ours would be added."""
    text = instruction.shared([record.problem for record in one.records])
    if text is None:
        return []
    if template == "none":
        return [f"{one.origin}: the problems hold an instruction, which is kept: {text!r}."]
    raise ValueError(
        f"{one.origin}: most problems begin or end with {text!r}. With --template {template} their prompts would have "
        "two instructions. Remove it from the source first, or keep it alone with --template none."
    )


def _duplicates(same) -> dict[str, Any]:
    first = [[record.raw.where for record in group] for group in same.groups[:FIRST]]
    return {"n": len(same.later), "with_another_answer": same.differing, "first": first}


def _overlap(found: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    return {"n": len(found), "first": [[one.raw.where, other.raw.where] for one, other in found[:FIRST]]}


def _count_note(one: Loaded) -> str:
    published = one.published
    if len(one.records) == published.rows:
        return ""
    return f"{one.origin} has {len(one.records):,} rows; {published.title} as published has {published.rows:,}."


def _write(out: Path, files: dict[str, tuple[list[Record], PublishedSet]], template: str, force: bool) -> list[Path]:
    def write(folder: Path) -> None:
        import pyarrow.parquet as pq

        for name, (records, published) in files.items():
            pq.write_table(table(records, published, template), folder / name)

    return write_all(out, files, write, force)


def _report(
    command: str, template: str | None, sets: dict[str, Any], notes: Sequence[str], against: list[str]
) -> dict[str, Any]:
    notes = [note for note in notes if note]
    return {"command": command, "template": template, "against": against, "sets": sets, "notes": notes}
