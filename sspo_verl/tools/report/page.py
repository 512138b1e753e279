"""The page: one self-contained HTML file, without network; JavaScript is optional (it shows values on hover)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite

from sspo_verl.names import KEY
from sspo_verl.tools.report import style, table, templates
from sspo_verl.tools.report.curves import Curve
from sspo_verl.tools.report.draw import SETTINGS, Picture, figure_of, pictures, share_scale
from sspo_verl.tools.report.panels import FAN, PROFILE, SECTIONS, TIMELINE, Section, Tile, advice
from sspo_verl.tools.report.responses import HOW_TO_DUMP, OfLabel
from sspo_verl.tools.report.runs import Group
from sspo_verl.tools.report.series import recorded
from sspo_verl.tools.report.svg import embed
from sspo_verl.tools.report.templates import sentence

SEVERAL = "Lines are means over the seeds, bands reach from the min to the max of them."
UNITS = ("nats", "nats per token", "seconds", "segments", "tokens")  # units shown after a number
HOW_TO_MEASURE = f"{KEY}.diagnostics=true turns it on for grpo, gspo and gspo_wide; it is on with SSPO's loss."


def render(
    groups: list[Group],
    notes: list[str],
    summaries: list[table.Summary],
    title: str,
    responses: Sequence[OfLabel] | None = None,
) -> str:
    """The page as HTML. responses: None omits that section."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        sections = [_section(section, groups) for section in SECTIONS]
    several = any(len(group.runs) > 1 for group in groups)
    return templates.render(
        "page.html",
        title=title,
        lead=f"Made by `sspo report`. {SEVERAL if several else 'One run for each label.'}",
        groups=groups,
        notes=notes,
        table_rows=table.rows(summaries),
        table_caption=table.CAPTION,
        unknown=(table.NOT_MEASURED, table.NOT_KNOWN),
        sections=sections,
        show_responses=responses is not None,
        responses=responses,
        how_to_dump=HOW_TO_DUMP,
    )


def _section(section: Section, groups: list[Group]) -> dict[str, object]:
    found = pictures(section.tiles, groups)
    drawn = [picture for picture in found if picture[1]]
    missing = [tile for tile, lines in found if not lines]
    titles = ", ".join(tile.title for tile in missing)
    how = f" {HOW_TO_MEASURE}" if any(tile.needs_diagnostics for tile in missing) else ""
    return {
        "key": section.key,
        "title": section.title,
        "text": section.text,
        "figures": _figures(section, drawn, groups),
        "missing": f"{titles}.{how}" if missing else "",
    }


def _figures(section: Section, drawn: list[Picture], groups: list[Group]) -> list[dict[str, object]]:
    from markupsafe import Markup

    figures = [figure_of(picture, groups) for picture in drawn]
    if section.same_scale and figures:
        share_scale([figure.axes[0] for figure in figures])
    tiles: list[dict[str, object]] = []
    for figure, (tile, lines) in zip(figures, drawn, strict=True):
        key = f"{tile.key}-{lines[0].style}" if tile.kind == FAN else tile.key
        svg, place = embed(figure, f"svg-{key}", _title(tile, lines), _description(tile, lines))
        data = json.dumps(_data(tile, lines, groups, place), separators=(",", ":")).replace("<", "\\u003c")
        tiles.append(
            {
                "key": key,
                "run": lines[0].style if tile.kind == FAN else None,
                "svg": Markup(svg),  # ElementTree has escaped what is in it
                "caption": _caption(tile, lines, groups),
                "data": Markup(data),  # contains no <
            }
        )
    return tiles


def _title(tile: Tile, lines: list[Curve]) -> str:
    return f"{tile.title}: {lines[0].label}" if tile.kind == FAN else tile.title


def _description(tile: Tile, lines: list[Curve]) -> str:
    """Description of a picture: where each curve begins and ends."""
    if tile.kind == PROFILE:
        return _described_by_place(tile, lines)
    if tile.kind == TIMELINE:
        said = [f"{c.label} saw it at {sum(v > 0 for v in c.mean)} of {len(c.steps)} steps" for c in lines]
    else:
        shown = [lines[len(lines) // 2]] if tile.kind == FAN else lines
        said = [
            f"{c.label} from {c.mean[0]:.4g} at step {c.steps[0]} to {c.mean[-1]:.4g} at step {c.steps[-1]}"
            for c in shown
        ]
    return f"Over steps, in {tile.unit}: {'; '.join(said)}." if tile.unit else f"Over steps: {'; '.join(said)}."


def _described_by_place(tile: Tile, lines: list[Curve]) -> str:
    said = [
        f"{c.label} {', '.join(f'{v:.4g} at {tile.places[place]}' for place, v in zip(c.steps, c.mean, strict=True))}"
        for c in lines
    ]
    return f"By {tile.axis}, in {tile.unit}: {'; '.join(said)}."


def _caption(tile: Tile, lines: list[Curve], groups: list[Group]) -> list[tuple[str, str]]:
    """(kind, text) parts of the caption: metric names, sentences in which `x` is code, and others by their class."""
    meaning, of = tile.explanation
    missing = [group.label for group in groups if group.label not in {c.label for c in lines}]
    names = ", ".join(tile.metrics) if tile.kind not in (FAN, PROFILE) else f"{tile.metrics[0].rpartition('/')[0]}/*"
    parts = [("name", names)]
    parts += [("", sentence(words)) for words in (advice(tile) if tile.kind == TIMELINE else [meaning])]
    if tile.kind != TIMELINE and of != "none":
        parts.append(("of", f"Of: {of}."))
    if missing and tile.kind != FAN:
        parts.append(("none", f"Not measured: {', '.join(missing)}."))
    if broken := _broken(tile, [groups[lines[0].style]] if tile.kind == FAN else groups):
        parts.append(("none", f"NaN or infinite: {broken}."))
    return parts


def _broken(tile: Tile, groups: list[Group]) -> str:
    """From which step on a label's runs have no points here, because their values were not finite."""
    said = []
    for group in groups:
        steps = [s for rows in group.rows for name in tile.series for s, v in recorded(rows, name) if not isfinite(v)]
        if steps:
            said.append(f"{group.label} at {len(set(steps))} steps, the first {min(steps)}")
    return "; ".join(said)


def _data(tile: Tile, lines: list[Curve], groups: list[Group], place: dict[str, float]) -> dict:
    """Data for the values shown on hover."""
    names = [series.rpartition("/")[2] for series in tile.series]
    return {
        "place": place,
        "unit": "%" if tile.share else tile.unit if tile.unit in UNITS else "",
        "kind": tile.kind,
        **({"places": tile.places} if tile.places else {}),
        "curves": [
            {
                "run": c.style,
                "label": names[i] if tile.kind == FAN else c.label,
                "marker": "" if tile.kind == FAN else style.marker_text(c.style),
                "color": c.style % len(style.CURVES),
                "of": len(groups[c.style].runs),
                "steps": c.steps,
                "mean": _short(c.mean),
                **({"low": _short(c.low), "high": _short(c.high), "seeds": c.seeds} if max(c.seeds) > 1 else {}),
            }
            for i, c in enumerate(lines)
        ],
    }


def _short(values: list[float]) -> list[float]:
    return [float(f"{v:.4g}") for v in values]
