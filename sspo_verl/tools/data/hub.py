"""Loads a data set from the hub, through the `datasets` library."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sspo_verl.tools.data.read import RawRow
from sspo_verl.tools.data.sets import PublishedSet


def load(published: PublishedSet) -> list[RawRow]:
    """Load all rows. Raises OSError, naming the id, if that fails for any reason."""
    from datasets import load_dataset

    hub = published.hub
    try:
        with _quiet():
            rows = load_dataset(hub.id, hub.config, split=hub.split)
    except Exception as error:  # the library raises whatever its network, cache and formats raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OSError(
            f"{published.title} cannot be loaded from the hub as {hub.id} ({reason.rstrip('.')}). "
            "Without a hub, name files on disk: --source FILE or --source FOLDER (parquet, arrow, JSONL)."
        ) from error
    return list(_rows(rows, hub.id))


def _rows(rows, source: str) -> Iterator[RawRow]:
    for number, value in enumerate(rows, start=1):
        yield RawRow(f"{source}:{number}", source, number, dict(value))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: an unreachable hub is tried six times, with a warning each, and the final error suffices."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
