"""Checks of the training data before Ray starts; verl finds the same faults minutes later, or not at all.

Refused: files that are missing, unreadable or inconsistent with each other, columns and rows that verl's dataset or
reward manager fails on (`data_file`), fewer rows than a batch, also after verl's filter of long prompts, a prompt that
the chat template does not accept, a reward function that fails on the data's own ground truth (`try_reward`). Reported:
prompts that are too long. Not checked: data with a user-defined class (data.custom_cls), and files that are not on this
machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sspo_verl.plugin.check_numbers import is_integer
from sspo_verl.plugin.data_file import DataFile, Needs, read_through

SECONDS = 1.0  # time limit for measuring prompts
ROWS_NAMED = 5
MEDIA = ("image_key", "video_key", "audio_key")  # prompts with these need the model's processor


def check(config) -> list[str]:
    """Notes for the log on the data of a composed configuration. Raises ValueError, naming key and file, if the data
    cannot be trained on, or the model's folder is not there."""
    from sspo_verl.plugin.try_reward import own_loop, try_reward, verl_scores

    data = config.data
    _check_model(config.actor_rollout_ref.model.get("path"))
    if (data.get("custom_cls") or {}).get("path"):
        return []
    names = _names("data.train_files", data.get("train_files"))
    if not names:
        raise ValueError("data.train_files names no file. Name parquet or JSONL files: data.train_files=PATH.")
    messages, scores = not own_loop(config), verl_scores(config)
    needs = Needs(data.prompt_key, messages, scores)
    train = [_read("data.train_files", path, needs) for path in _local(names)]
    needs = Needs(data.prompt_key, messages, scores and _validates(config))
    val = [_read("data.val_files", path, needs) for path in _local(_names("data.val_files", data.get("val_files")))]
    for files in (train, val):
        _refuse_other_types(files)
    if not train:
        return []
    _check_rows(train, data)
    _check_template_settings(data)
    samples = {source: sample for file in reversed(train) for source, sample in file.samples.items()}
    return [*_prompts(train, config), *try_reward(config, samples)]


def _check_model(path: Any) -> None:
    """Raise ValueError for a model that is neither a folder here nor possibly a name on a hub."""
    key = "actor_rollout_ref.model.path"
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"{key} must be a model's folder, or its name on the hub, got {path!r}.")
    folder = Path(path).expanduser()
    if folder.is_absolute() and not folder.is_dir():
        what = "is not a folder" if folder.exists() else "there is no such folder here"
        raise ValueError(f"{key}={path}: {what}. Name a model's folder, or its name on the hub.")


def _names(key: str, files: Any) -> list[str]:
    """The paths of a setting, as a list. Raises ValueError if it is neither a path nor a list of paths."""
    names = [files] if isinstance(files, str) or not isinstance(files, Sequence) else list(files)
    names = [] if files is None else names
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{key}: {name!r} is not a path. Name parquet or JSONL files: {key}=PATH or {key}=[A,B].")
    return names


def _local(names: list[str]) -> list[Path]:
    return [Path(name).expanduser() for name in names if "://" not in name]


def _validates(config) -> bool:
    """Whether the reward also scores the validation data."""
    trainer = config.get("trainer") or {}
    frequency = trainer.get("test_freq", -1)
    return bool(trainer.get("val_before_train")) or (isinstance(frequency, int) and frequency > 0)


def _read(key: str, path: Path, needs: Needs) -> DataFile:
    """Read through a file, of the kinds that verl reads. Raises ValueError."""
    if path.is_dir():
        raise ValueError(f"{key}: {path} is a folder. Name the parquet or JSONL files in it: {key}=[A,B].")
    if not path.is_file():
        raise ValueError(f"{key}: {path} is not there. Name parquet or JSONL files: {key}=PATH.")
    if path.suffix not in (".parquet", ".json", ".jsonl"):
        raise ValueError(f"{key}: {path} does not end in .parquet, .json or .jsonl, which verl reads.")
    return read_through(key, path, needs)


def _refuse_other_types(files: list[DataFile]) -> None:
    """Refuse files whose column types differ: verl concatenates them with `datasets`, which allows different columns
    but not different types of a column."""
    if len({file.path for file in files}) < 2:
        return
    import datasets
    import pyarrow

    before: list[tuple[DataFile, Any]] = []
    for file in files:
        schema = file.schema()
        if schema is None:
            continue
        row = pyarrow.Table.from_arrays([pyarrow.nulls(1, each.type) for each in schema], schema=schema)
        one = datasets.Dataset(row)
        for other, its_row in before:
            try:
                datasets.concatenate_datasets([its_row, one])
            except (ValueError, TypeError, pyarrow.ArrowException) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{file.name} does not fit {other.path}: verl cannot concatenate them, as a column differs in "
                    f"type ({reason:.300}). Give it one type, or train on one of the files."
                ) from error
        before.append((file, one))


def _check_rows(train: list[DataFile], data) -> None:
    batch, rows = _whole(data, "train_batch_size"), _rows_taken(train, data)
    if batch < 1:
        raise ValueError(f"data.train_batch_size={batch}: set it to 1 or more prompts per step.")
    if rows < batch:
        files = ", ".join(str(file.path) for file in train)
        raise ValueError(
            f"data.train_batch_size={batch}, but data.train_files ({files}) have {rows} row(s), less "
            f"than one batch. Set data.train_batch_size to {rows} or less."
        )


def _rows_taken(train: list[DataFile], data) -> int:
    """How many rows verl takes, before it leaves out long prompts."""
    rows = sum(file.rows for file in train)
    most = _whole(data, "train_max_samples", -1, "-1 for all rows, or how many")
    return most if 0 < most < rows else rows


def _check_template_settings(data) -> None:
    settings = data.get("apply_chat_template_kwargs", {})
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"data.apply_chat_template_kwargs={'null' if settings is None else settings}: set it to arguments of the "
            "chat template, {enable_thinking: false} say, or {} for none."
        )


def _whole(data, key: str, default: int | None = None, what: str = "1 or more") -> int:
    value = data.get(key, default)
    if not is_integer(value):
        raise ValueError(f"data.{key}={'null' if value is None else value}: set a whole number, {what}.")
    return value


def _prompts(train: list[DataFile], config) -> list[str]:
    """Notes on the prompts' lengths. Raises ValueError for a prompt that fails in the chat template, and if the filter
    of long prompts leaves less than a batch."""
    data, tokenizer = config.data, _tokenizer(config)
    if tokenizer is None or any(data.get(key) in file.columns for key in MEDIA for file in train):
        return []
    lengths = _lengths(train, tokenizer, data)
    return _filtered(train, lengths, data) if data.get("filter_overlong_prompts") else _too_long(lengths, data)


def _lengths(train: list[DataFile], tokenizer, data) -> Iterator[tuple[str, float]]:
    """(where, number of tokens) of the first prompts, as many as the time limit allows. With the filter of long
    prompts, which leaves out those that fail in the chat template, a failure after the first row is infinite."""
    began, first = time.monotonic(), True
    for file in train:
        for where, row in file.read([data.prompt_key]):
            try:
                length = _length(tokenizer, row[data.prompt_key], data, f"{file.name}, {where}")
            except ValueError:
                if first or not data.get("filter_overlong_prompts"):
                    raise
                length = math.inf
            yield f"{where} of {file.path.name}", length
            first = False
            if time.monotonic() - began > SECONDS:
                return


def _too_long(lengths: Iterator[tuple[str, float]], data) -> list[str]:
    most, seen, longest, too_long = _whole(data, "max_prompt_length"), 0, 0, []
    for where, length in lengths:
        seen, longest = seen + 1, max(longest, length)
        if length > most:
            too_long.append(where)
    if not too_long:
        return []
    named = ", ".join(too_long[:ROWS_NAMED]) + (", ..." if len(too_long) > ROWS_NAMED else "")
    return [
        f"WARNING: {len(too_long):,} of the first {seen:,} prompts have more than data.max_prompt_length="
        f"{most} tokens, up to {longest:,} ({named}). verl silently truncates them on the left, "
        f"and the reward is for the response to the rest: set data.max_prompt_length={longest}, or "
        "data.filter_overlong_prompts=True to leave them out."
    ]


def _filtered(train: list[DataFile], lengths: Iterator[tuple[str, float]], data) -> list[str]:
    """Look for a batch of prompts that the filter leaves, among the rows that verl may take."""
    most, batch, taken = _whole(data, "max_prompt_length"), data.train_batch_size, _rows_taken(train, data)
    rows = sum(file.rows for file in train) if data.get("shuffle") else taken
    seen, stay = [], 0
    for _, length in islice(lengths, rows):
        seen.append(length)
        stay += length <= most
        if stay >= batch:
            return []
    few = (
        f"data.filter_overlong_prompts=True leaves {stay:,} of the {'' if len(seen) == rows else 'first '}{len(seen):,}"
        f" prompts, those of at most data.max_prompt_length={most} tokens"
    )
    if len(seen) == rows:
        enough = sorted(seen)[batch - 1]
        longer = f"={enough}" if enough < math.inf else " higher"
        smaller = f", or data.train_batch_size to {stay} or less" if stay else ""
        raise ValueError(
            f"{few}: less than data.train_batch_size={batch}. Set data.max_prompt_length{longer}{smaller}."
        )
    if stay * taken >= batch * len(seen):
        return []
    return [
        f"WARNING: {few}. At this rate less than data.train_batch_size={batch} of {taken:,} stay, and verl fails: set "
        "data.max_prompt_length higher."
    ]


def _tokenizer(config):
    """The model's tokenizer, with the run's chat template; None as in `tokenizer_of`."""
    from sspo_verl.plugin.tokenizer import tokenizer_of

    model = config.actor_rollout_ref.model
    tokenizer = tokenizer_of(model)
    if tokenizer is not None and model.get("custom_chat_template"):
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer


def _length(tokenizer, messages, data, where: str) -> int:
    """Number of tokens of a prompt."""
    settings = dict(data.get("apply_chat_template_kwargs", {})) | {"tokenize": False, "add_generation_prompt": True}
    try:
        text = tokenizer.apply_chat_template(messages, **settings)
    except Exception as error:  # whatever a template raises
        raise ValueError(
            f"{where}: {data.prompt_key!r} fails in the model's chat template "
            f"({type(error).__name__}: {error}). It must be a list of messages, [{{'role': 'user', 'content': ...}}]."
        ) from error
    try:
        text.encode()  # fails for half a character, of which tokenizers only say that they got no text
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # whatever a tokenizer raises
        raise ValueError(
            f"{where}: {data.prompt_key!r} fails in the model's tokenizer ({type(error).__name__}: {error}). Correct "
            "its text, or leave the row out."
        ) from error
