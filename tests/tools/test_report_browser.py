"""The page of `sspo report` in a real headless browser: its curves, toggling, reading values, and nothing loaded."""

import os

import browser
import fake_runs
import pytest
from click.testing import CliRunner

from sspo_verl.tools.report.command import command

LABELS = ("sspo", "sspo_no_entropy_clip", "grpo", "gspo")
# The boxes of everything of one label in one picture.
BOXES = """
((tile, run) => [...document.querySelectorAll(`#tile-${tile} [data-run="${run}"] path`)].map(path => {
  const box = path.getBoundingClientRect(), style = getComputedStyle(path);
  return [box.width, box.height, style.stroke, style.fill, style.visibility];
}))
"""
CENTRE = """
(selector => {
  const element = document.querySelector(selector);
  element.scrollIntoView({block: "center", behavior: "instant"});
  const box = element.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2, box.width];
})
"""
# WCAG's contrast of two colours.
CONTRAST = """
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
"""
# Whatever reaches beyond the right edge without a scroll bar of its own.
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(element =>
  element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest(".scroll") && !element.closest("svg")
).map(element => element.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of four algorithms; the last two without diagnostics, one seed of gspo ended half way."""
    folder = tmp_path_factory.mktemp("runs")
    for algorithm in LABELS:
        for seed in range(2):
            diagnostics = algorithm.startswith("sspo")
            steps = 17 if (algorithm, seed) == ("gspo", 1) else 30
            rows = fake_runs.rows(algorithm, seed, steps, diagnostics=diagnostics)
            fake_runs.write(folder / f"{algorithm}_{seed}" / "metrics.jsonl", rows)
    fake_runs.rollouts(folder / "sspo_1" / "rollouts")
    named = [f"{a}={folder}/{a}_{seed}" for a in LABELS for seed in range(2)]
    done = CliRunner().invoke(command, [*named, "--out", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def chromium():
    program = browser.find()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI is set, and no chromium is installed: this test may not be skipped here")
        pytest.skip("no chromium is installed here (Debian: apt-get install chromium)")
    with browser.launch(program) as page:
        yield page


@pytest.fixture
def page(chromium, report):
    chromium.resize(1280)
    chromium.dark(False)
    chromium.point(1, 1)
    chromium.open(report)
    yield chromium
    assert chromium.errors() == []
    assert chromium.requests() == [report.as_uri()]


def boxes(page, tile: str, label: str) -> list:
    return page.evaluate(f"{BOXES}('{tile}', {LABELS.index(label)})")


def test_every_label_has_its_curves(page):
    figures = page.evaluate("[...document.querySelectorAll('figure')].map(f => f.id)")
    assert len(figures) == 55
    for tile, labels in (
        ("accuracy", LABELS),
        ("clipfrac", LABELS),
        ("as_gspo", LABELS[:2]),
        ("warning_entropy", LABELS[:2]),
    ):
        colors = set()
        for label in labels:
            drawn = boxes(page, tile, label)
            assert any(width > 150 for width, *_ in drawn), (tile, label, drawn)
            assert any(height > 2 for _, height, *_ in drawn), (tile, label, drawn)
            assert all(visibility == "visible" for *_, visibility in drawn)
            colors |= {stroke for _, _, stroke, _, _ in drawn if stroke != "none"}
        assert len(colors) == len(labels), (tile, colors)
    assert boxes(page, "as_gspo", "grpo") == []  # not measured
    assert "Not measured: grpo, gspo." in page.evaluate("document.querySelector('#tile-as_gspo').innerText")


def test_toggling_hides_and_shows_one_label_everywhere(page):
    def seen(label: str) -> list[bool]:
        tiles = ("accuracy", "clip_low", "quantiles-0")
        return [any(width > 0 for width, *_ in boxes(page, tile, label)) for tile in tiles]

    cells = "[...document.querySelectorAll('tbody [data-run=\"0\"]')].filter(c => c.offsetWidth > 0).length"
    assert seen("sspo")[:2] == [True, True]
    rows = page.evaluate(cells)
    assert rows > 10
    x, y, _ = page.evaluate(f"{CENTRE}('#show-0')")
    page.click(x, y)
    assert seen("sspo") == [False, False, False]
    assert seen("sspo_no_entropy_clip")[:2] == [True, True]
    assert page.evaluate("document.querySelector('#tile-quantiles-0').offsetHeight") == 0
    assert page.evaluate("document.querySelector('#tile-quantiles-1').offsetHeight") > 100
    assert page.evaluate(cells) == 0
    page.click(x, y)
    assert seen("sspo")[:2] == [True, True]
    assert page.evaluate(cells) == rows


def test_pointing_reads_values(page):
    def values() -> str | None:
        return page.evaluate("(box => box.hidden ? null : box.innerText)(document.getElementById('values'))")

    assert values() is None
    x, y, width = page.evaluate(f"{CENTRE}('#tile-accuracy svg')")
    page.point(x + 0.45 * width, y)  # the right edge
    accuracy = [100 * fake_runs.rows("sspo", seed)[30]["val-core/sums/acc/mean@1"] for seed in range(2)]
    shown = values()
    assert shown is not None
    assert shown.startswith("step 30\n")
    assert f"sspo: {sum(accuracy) / 2:.4g} % ({min(accuracy):.4g} to {max(accuracy):.4g})\n" in shown
    gspo = 100 * fake_runs.rows("gspo", 0, diagnostics=False)[30]["val-core/sums/acc/mean@1"]
    assert shown.rstrip().endswith(f"gspo: {gspo:.4g} % ({gspo:.4g} to {gspo:.4g}, 1 of 2 seeds)")
    assert page.evaluate("document.querySelectorAll('#tile-accuracy .guide').length") == 1
    page.point(1, 1)
    assert values() is None


def test_arrow_keys_read_values(page):
    page.evaluate("document.querySelector('#tile-warning_entropy svg').focus()")
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 30), ("ArrowLeft", 29)):
        page.key(key)
        shown = page.evaluate("document.getElementById('values').innerText")
        assert shown.startswith(f"step {step}\n")
    seen = sum(int(fake_runs.rows("sspo", seed)[29]["sspo/warning/entropy"]) for seed in range(2))
    assert f"sspo: seen by {seen} of 2\n" in shown
    page.key("Escape")
    assert page.evaluate("document.getElementById('values').hidden")


def test_without_javascript_curves_and_toggles_work(page, report):
    page.call("Emulation.setScriptExecutionDisabled", value=True)  # of the page; DevTools' own still runs
    try:
        page.open(report)
        x, y, _ = page.evaluate(f"{CENTRE}('#tile-accuracy svg')")
        page.point(x, y)
        assert page.evaluate("document.getElementById('values').hidden")
        assert any(width > 150 for width, *_ in boxes(page, "accuracy", "sspo"))
        page.click(*page.evaluate(f"{CENTRE}('#show-0')")[:2])
        assert not any(width for width, *_ in boxes(page, "accuracy", "sspo"))
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows(page, report, width):
    page.resize(width)
    page.open(report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    if width == 390:
        assert page.evaluate("document.querySelector('#tile-accuracy svg').getBoundingClientRect().width") > 300
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert page.evaluate(OVERFLOWING) == []


def test_segments_are_tinted_named_and_marked(page):
    """A tint for each band and a word beside it; clips by an edge and a word; hostile text is only text."""
    found = page.evaluate("""
    [...document.querySelectorAll(".response li")].map(li => {
      const s = getComputedStyle(li);
      return [li.innerText.replace(/\\s+/g, " ").trim(), s.backgroundColor, s.borderTopWidth, s.borderBottomWidth];
    })
    """)
    assert len(found) == 3 * 8 * 4
    tint, words = {}, {"high": "high 1.500", "mid": "mid 0.750", "low": "low 0.250"}
    for text, color, *_ in found:
        tint.setdefault(next((band for band, said in words.items() if text.startswith(said)), None), set()).add(color)
    assert {band: len(colors) for band, colors in tint.items()} == {"high": 1, "mid": 1, "low": 1, None: 1}
    assert len(set.union(*tint.values())) == 4
    edges = {(top, bottom): text for text, _, top, bottom in found}
    assert edges.keys() == {("2px", "2px"), ("4px", "2px"), ("2px", "4px")}
    assert "s 0.7123 ▲ clipped, upper first" in edges["4px", "2px"]
    assert "s 0.7123 ▼ clipped, lower first" in edges["2px", "4px"]
    shown = next(text for text, *_ in found if "bold" in text)
    assert "<b onclick=alert(1)>bold</b> U+202Eright to leftU+202C NUL ESC[31m </script><script>alert(1)" in shown
    assert page.evaluate("document.querySelectorAll('.response :is(script, i, [onclick])').length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_tinted_text_is_readable_in_light_and_dark(page, dark):
    """Also for the colour-blind: the lightness of what is written on each tint alone gives the contrast."""
    page.dark(dark)
    low = page.evaluate(f"""
    (() => {{
      {CONTRAST}
      const ground = e => {{
        for (; ; e = e.parentElement) {{
          const color = getComputedStyle(e).backgroundColor;
          if (color !== "rgba(0, 0, 0, 0)") return color;
        }}
      }};
      return [...document.querySelectorAll(".response *, .key *")].filter(e => e.innerText)
        .map(e => [contrast(getComputedStyle(e).color, ground(e)), e.outerHTML]).filter(([c]) => c < 4.5).slice(0, 5);
    }})()
    """)
    assert low == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_light_and_dark(page, dark):
    """WCAG's contrast of 4.5 between all text, that in pictures too, and the card behind it."""
    page.dark(dark)
    low = page.evaluate(f"""
    (() => {{
      {CONTRAST}
      const card = getComputedStyle(document.querySelector("figure")).backgroundColor;
      const paint = e => e.closest("svg") ? getComputedStyle(e).fill : getComputedStyle(e).color;
      return [...document.querySelectorAll("figure text, figcaption, figcaption *, td, th, p, nav .mark")]
        .map(e => [contrast(paint(e), card), e.textContent]).filter(([c]) => c < 4.5).slice(0, 5);
    }})()
    """)
    assert low == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, background[4:-1].split(","))) < 60) == dark


def test_pictures_have_names_for_those_who_do_not_see_them(page):
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    images = [node for node in tree if node.get("role", {}).get("value") in ("image", "img")]
    names = [node["name"]["value"] for node in images if not node.get("ignored")]
    assert len(names) == page.evaluate("document.querySelectorAll('figure').length")
    assert all("Over steps" in name or "By " in name for name in names)
    assert any(name.startswith("Held-out accuracy Over steps, in % of problems: sspo from 15") for name in names)
