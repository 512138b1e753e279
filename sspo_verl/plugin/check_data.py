"""Checks of the training data before Ray starts, where verl finds the same faults minutes later, or not at all.

Refused: files that are not there or cannot be read, columns that are missing, fewer rows than a batch, a prompt that
the chat template does not take, a reward function that fails on the data's own ground truth (`try_reward`). Said:
prompts that are too long. Left alone: data of a class of the user's own (data.custom_cls), and what is not on this
machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 1.0  # at most, for counting long prompts
ROWS_NAMED = 5
MEDIA = ("image_key", "video_key", "audio_key")  # prompts with these need the model's processor


@dataclass(frozen=True)
class Table:
    """A data file. key: the setting that names it."""

    key: str
    path: Path
    rows: int
    columns: list[str]

    @property
    def name(self) -> str:
        return f"{self.key}: {self.path}"

    def read(self) -> Iterator[dict[str, Any]]:
        """Its rows."""
        if self.path.suffix == ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=64):
                    yield from batch.to_pylist()
        else:
            yield from _json_rows(self.path)


def check(config) -> list[str]:
    """Lines on the data of a composed configuration that are worth knowing. Raises ValueError, naming key and file,
    where they cannot be trained on."""
    data = config.data
    if (data.get("custom_cls") or {}).get("path"):
        return []
    train = [open_table("data.train_files", path, data) for path in _local(data.train_files)]
    for path in _local(data.get("val_files")):
        open_table("data.val_files", path, data)
    if not train:
        return []
    _check_columns(train, config)
    _check_rows(train, data)
    from sspo_verl.plugin.try_reward import try_reward

    return [*_prompts(train, config), *try_reward(config, next(train[0].read()))]


def _local(files) -> list[Path]:
    names = [files] if isinstance(files, str) else list(files or ())
    return [Path(name).expanduser() for name in names if "://" not in name]


def open_table(key: str, path: Path, data) -> Table:
    """A file of the kinds that verl reads, with its number of rows and its columns. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{key}: {path} is not there. Name parquet or JSONL files, by {key}=PATH.")
    if path.suffix not in (".parquet", ".json", ".jsonl"):
        raise ValueError(f"{key}: {path} is neither .parquet nor .json nor .jsonl, which verl reads by their names.")
    try:
        rows, columns = _parquet_size(path) if path.suffix == ".parquet" else _json_size(path)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise ValueError(f"{key}: {path} cannot be read: {str(error).splitlines()[0]}") from error
    if rows == 0:
        raise ValueError(f"{key}: {path} has no rows.")
    table = Table(key, path, rows, columns)
    if data.prompt_key not in columns:
        raise ValueError(
            f"{table.name} has no column {data.prompt_key!r} (data.prompt_key). It has {', '.join(columns)}."
        )
    return table


def _parquet_size(path: Path) -> tuple[int, list[str]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.metadata.num_rows, file.schema_arrow.names


def _json_size(path: Path) -> tuple[int, list[str]]:
    rows = _json_rows(path)
    first = next(rows, None)
    if not isinstance(first, dict):
        return 0, []
    return 1 + sum(1 for _ in rows), list(first)


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        if file.read(1) == "[":
            file.seek(0)
            yield from json.load(file)
        else:
            file.seek(0)
            yield from (json.loads(line) for line in file if line.strip())


def _check_columns(train: list[Table], config) -> None:
    """What verl's own reward managers read. An agent loop or a manager of the user's may do without."""
    from sspo_verl.plugin.try_reward import verl_scores

    if not verl_scores(config):
        return
    for table in train:
        for column, use in (("data_source", "the reward's first argument"), ("reward_model", "{'ground_truth': ...}")):
            if column not in table.columns:
                raise ValueError(
                    f"{table.name} has no column {column!r} ({use}), without which the reward fails for each response. "
                    f"It has {', '.join(table.columns)}. `sspo data` and docs/data.md show the layout."
                )
        ground_truth = next(table.read())["reward_model"]
        if not isinstance(ground_truth, dict) or "ground_truth" not in ground_truth:
            raise ValueError(f"{table.name}: 'reward_model' of its first row is not a dict with 'ground_truth'.")


def _check_rows(train: list[Table], data) -> None:
    rows = sum(table.rows for table in train)
    if 0 < data.get("train_max_samples", -1) < rows:
        rows = data.train_max_samples
    if rows < data.train_batch_size:
        files = ", ".join(str(table.path) for table in train)
        raise ValueError(
            f"data.train_batch_size={data.train_batch_size}, but data.train_files ({files}) have {rows} row(s): not "
            f"one batch. Set data.train_batch_size to {rows} or less."
        )


def _prompts(train: list[Table], config) -> Iterator[str]:
    """The first prompt goes through the chat template; long ones are counted, of as many as a second allows."""
    data, tokenizer = config.data, _tokenizer(config)
    if tokenizer is None or any(data.get(key) in table.columns for key in MEDIA for table in train):
        return
    began, seen, longest, too_long = time.monotonic(), 0, 0, []
    for table in train:
        for number, row in enumerate(table.read()):
            length = _length(tokenizer, row[data.prompt_key], data, f"{table.name}, row {number}")
            seen, longest = seen + 1, max(longest, length)
            if length > data.max_prompt_length:
                too_long.append(f"row {number} of {table.path.name}")
            if data.get("filter_overlong_prompts") or time.monotonic() - began > SECONDS:
                break
    if too_long and not data.get("filter_overlong_prompts"):
        named = ", ".join(too_long[:ROWS_NAMED]) + (", ..." if len(too_long) > ROWS_NAMED else "")
        yield (
            f"WARNING: {len(too_long):,} of the first {seen:,} prompts have more than data.max_prompt_length="
            f"{data.max_prompt_length} tokens, up to {longest:,} ({named}). verl cuts them on the left without a word, "
            f"and rewards the response to the rest: set data.max_prompt_length={longest}, or "
            "data.filter_overlong_prompts=True to leave them out."
        )


def _tokenizer(config):
    """The model's, with the run's chat template; None as in `tokenizer_of`."""
    from sspo_verl.plugin.tokenizer import tokenizer_of

    model = config.actor_rollout_ref.model
    tokenizer = tokenizer_of(model)
    if tokenizer is not None and model.get("custom_chat_template"):
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer


def _length(tokenizer, messages, data, where: str) -> int:
    """Tokens of a prompt."""
    settings = dict(data.get("apply_chat_template_kwargs") or {}) | {"tokenize": False, "add_generation_prompt": True}
    try:
        text = tokenizer.apply_chat_template(messages, **settings)
    except Exception as error:  # of any template
        raise ValueError(
            f"{where}: {data.prompt_key!r} does not go through the model's chat template "
            f"({type(error).__name__}: {error}). It is to be a list of messages, [{{'role': 'user', 'content': ...}}]."
        ) from error
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
