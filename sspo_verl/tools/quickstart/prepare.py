"""Step 2, prepare: puts the starting model and the data in their folder, and writes the settings."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sspo_verl.plugin import check_data
from sspo_verl.tools.quickstart.ask import Asked
from sspo_verl.tools.quickstart.display import PREPARING, Display, Status, percent
from sspo_verl.tools.runs import settings
from sspo_verl.tools.runs.lock import hold


@dataclass(frozen=True)
class Prepared:
    asked: Asked
    seconds: dict[str, float]  # by stage


def prepare(asked: Asked, display: Display) -> Prepared:
    """Prepare the run; if it starts over, clear its folder. Raises ValueError, with the folder as it was, if the data
    cannot be trained on, or the reward function fails on them."""
    began = time.monotonic()
    left = asked.forecast.before_training()
    display.show(Status(PREPARING, "the starting model and the data", seconds_left=left))
    from sspo_verl.tools.quickstart import start  # imports transformers, which takes seconds

    with hold(asked.start.with_name("start.lock")):
        record = start.read_if_current(asked.start) or start.make(asked.start)
    display.say(
        f"Starting model: {record['parameters']:,} parameters, solves {percent(record['greedy_accuracy'])} of the "
        f"held-out problems greedily, {percent(record['sampled_accuracy'])} sampled."
    )
    for line in check_data.check(asked.config):
        display.say(line)
    if asked.fresh:
        asked.run.clear()
    settings.write(asked.settings, asked.run.path)
    return Prepared(asked, {"model": time.monotonic() - began})
