"""A page with only responses: `sspo analyze --html`."""

from __future__ import annotations

from pathlib import Path

from sspo_verl.tools import files
from sspo_verl.tools.analyze.cut import ByTokens
from sspo_verl.tools.analyze.sample import Sample
from sspo_verl.tools.analyze.thresholds import Thresholds
from sspo_verl.tools.report import templates
from sspo_verl.tools.report.tinted import tinted


def write(path: Path, sample: Sample, cutter: ByTokens | None, thresholds: Thresholds, title: str) -> None:
    """Write the page. cutter: None if there is no tokenizer; the text is then cut by lines."""
    page = templates.render(
        "texts.html",
        title=title,
        sample=sample,
        shown=[tinted(response, cutter, thresholds) for response in sample.chosen()],
        how="by the model's tokens" if cutter else "by lines",
        thresholds=thresholds,
    )
    files.write(path, page)
