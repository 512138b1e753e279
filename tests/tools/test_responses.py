"""Responses on a page: which are shown, where their text is cut, what of them is escaped, and where they come from."""

import json
import re
from collections import Counter

import fake_runs
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sspo_verl.metrics.names import DUMP_FIELDS
from sspo_verl.names import KEY
from sspo_verl.tools.analyze import cut as cut_module
from sspo_verl.tools.analyze.command import command as analyze_command
from sspo_verl.tools.analyze.cut import PIECE, ByTokens
from sspo_verl.tools.analyze.fields import Columns, Response, take
from sspo_verl.tools.analyze.pieces import by_lines, pieces
from sspo_verl.tools.analyze.sample import Sample
from sspo_verl.tools.analyze.thresholds import Thresholds
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.report import page as page_module
from sspo_verl.tools.report import runs
from sspo_verl.tools.report import write as write_module
from sspo_verl.tools.report.command import command
from sspo_verl.tools.report.responses import FOLDER, NoStep, Wanted, choose
from sspo_verl.tools.report.tinted import readable, tinted

BOUNDS = Thresholds(0.5, 1.0)
# Line breaks, what str.splitlines takes for one too, blanks, characters of several bytes, and text.
TEXTS = st.text(st.sampled_from("\n\n\r\x0b\x1c\u2028 \tab#é漢🙂"), max_size=30)


def response(text: str, *values: tuple, segments: int | None = None, **more) -> Response:
    """values: (tokens, entropy, clip, ratio) of the segments that the dump lists."""
    lists = zip(*values, strict=True) if values else [None] * 4
    fields = dict(zip(DUMP_FIELDS, (segments, *(v and list(v) for v in lists)), strict=False))
    found = take("f:1", {"output": text, **fields, **more}, Columns(entropy="entropies"))
    assert isinstance(found, Response)
    assert not found.problems
    return found


@pytest.fixture(scope="module")
def by_bytes():
    return ByTokens(byte_tokenizer.build())


@pytest.fixture(scope="module")
def by_words():
    """As SentencePiece's: a blank begins each word and each text, and decoding takes the first one off."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=60, initial_alphabet=list("\n ab#"), show_progress=False)
    core.train_from_iterator(["ab ab\n", " a\n b", "# a\nab"], trainer)
    return ByTokens(PreTrainedTokenizerFast(tokenizer_object=core))


# Cutting


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_pieces_are_the_text_and_as_many_as_are_counted(by_bytes, text):
    lines = by_lines(text)
    assert "".join(lines) == text
    [counted] = cut_module.by_lines([text])
    assert len(lines) == max(counted.segments, 1)
    cut = pieces(response(text), by_bytes)
    [counted] = by_bytes([text])
    assert "".join(cut.texts) == text
    assert [len(part.encode()) for part in cut.texts if text] == cut.tokens == counted.tokens.tolist()


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("\n ab#"), max_size=20))
def test_a_tokenizer_whose_decoding_loses_blanks_cuts_by_its_offsets(by_words, text):
    cut = pieces(response(text), by_words)
    [counted] = by_words([text])
    assert "".join(cut.texts) == text
    assert cut.tokens == counted.tokens.tolist()
    assert all("\n" in part for part in cut.texts[:-1])


def test_a_text_that_does_not_fit_its_dump_is_not_tinted(by_bytes):
    value = (2, 0.1, 0, 1.0)
    for cutter in (None, by_bytes):
        good = tinted(response("a\nb", value, value, segments=2), cutter, BOUNDS)
        assert [s.band for s in good.segments] == ["low", "low"]
        assert good.remark == ""
        other = tinted(response("a\nb", value, value, value, segments=3), cutter, BOUNDS)
        assert [(s.band, s.entropy, s.ratio) for s in other.segments] == [(None, None, None)] * 2
        assert other.remark == "Not tinted: the text has 2 segments and had 3 in training."
        short = tinted(response("a\nb", (9, 0.1, 0, 1.0), value, segments=2), cutter, BOUNDS)
        assert [s.band for s in short.segments] == [None] * 2
        assert "too short for the tokens" in short.remark


def test_tokens_that_were_others_in_training_are_remarked(by_bytes):
    dumped = response("ab\nc", (2, 0.1, 0, 1.0), (2, 0.1, 0, 1.0), segments=2)  # c and the end token
    shown = tinted(dumped, by_bytes, BOUNDS)
    assert (
        shown.remark == "Segment 1 had different tokens in training than its text has now; they are matched by number."
    )
    assert [s.band for s in shown.segments] == ["low", "low"]
    assert tinted(dumped, None, BOUNDS).remark == ""


def test_segments_say_what_is_known_of_them(by_bytes):
    values = [(2, 0.49, 0, 0.7), (2, 1.0, -1, None), (2, None, 1, 1.2)]
    shown = tinted(response("a\nb\nc\nd", *values, segments=4), None, BOUNDS)
    assert [(s.band, s.entropy, s.ratio, s.side) for s in shown.segments] == [
        ("low", 0.49, 0.7, None),
        ("mid", 1.0, None, "low"),
        (None, None, 1.2, "high"),
        (None, None, None, None),  # the dump lists three
    ]
    without_ratio = take("f", {"output": "a", "sspo_segments": 1, "sspo_segment_entropy": [2.0]}, Columns())
    assert isinstance(without_ratio, Response)
    [segment] = tinted(without_ratio, None, BOUNDS).segments
    assert (segment.band, segment.ratio, segment.side) == ("high", None, None)
    of_tokens = response("a\nb", entropies=[0.0, 0.4, 2.0, 4.0])
    assert [s.entropy for s in tinted(of_tokens, by_bytes, BOUNDS).segments] == [0.2, 3.0]  # with the end token
    assert [s.entropy for s in tinted(of_tokens, None, BOUNDS).segments] == [None, None]


def test_an_empty_response_is_one_segment_of_its_end_token():
    [segment] = tinted(response("", (1, 0.2, 0, 1.0), segments=1), None, BOUNDS).segments
    assert (segment.parts, segment.band) == ([], "low")


def test_what_cannot_be_seen_is_named_and_the_rest_is_kept():
    assert readable("plain\n\ttext <b>") == [(False, "plain\n\ttext <b>")]
    kept = "naïve 漢字 שלום 👩\u200d🚀 e\u0301 क\u200cष"
    assert readable(kept) == [(False, kept)]
    hidden = {
        "\0": "NUL",
        "\r": "CR",
        "\x1b": "ESC",
        "\x85": "U+0085",
        "\u200b": "U+200B",
        "\u200f": "U+200F",
        "\u202e": "U+202E",
        "\u2028": "U+2028",
        "\u2067": "U+2067",
        "\ufeff": "U+FEFF",
        "\U000e0041": "U+E0041",
        "\uffff": "U+FFFF",
    }
    assert readable("é" + "".join(hidden)) == [(False, "é"), *((True, name) for name in hidden.values())]


# Choosing


def test_a_sample_has_right_and_wrong_ones_clipped_and_not():
    def draw(wanted: int, kinds: list[tuple[float | None, int]]) -> list[tuple[bool | None, str | None, str]]:
        sample = Sample(wanted)
        for i, (score, clip) in enumerate(kinds):
            sample.add(response(str(i), (1, 0.1, clip, 1.0), segments=1, **({} if score is None else {"score": score})))
        return [(r.correct, r.dumped[0].side, r.text) for r in sample.chosen()]

    many = [(float(i % 2), int(i in (500, 501))) for i in range(1000)]
    drawn = draw(8, many)
    assert drawn == draw(8, many)
    kinds = {(c, s): n for c in (True, False) for s, n in (("high", 1), ("none", 3))}
    assert Counter((c, s) for c, s, _ in drawn) == kinds
    assert [int(text) for *_, text in drawn] == sorted(int(text) for *_, text in drawn)
    assert max(int(text) for *_, text in drawn) > 501  # not the first ones only
    assert [c for c, *_ in draw(4, [(1.0, 0)] * 9)] == [True] * 4
    assert [c for c, *_ in draw(5, [(None, 0), (1.0, 0)])] == [None, True]


def test_a_response_too_long_to_be_cut_in_one_piece_is_counted_and_not_kept():
    sample = Sample(3)
    for text in ("a" * (PIECE + 1), "a" * PIECE):
        sample.add(response(text))
    assert (sample.seen, sample.too_long, len(sample.chosen())) == (2, 1, 1)


@pytest.fixture
def run(tmp_path):
    folder = fake_runs.quickstart(tmp_path / "run", **{f"{KEY}.entropy_low": 0.8})
    fake_runs.rollouts(folder / "rollouts")
    return folder


def test_first_middle_and_last_step_are_shown_or_those_asked_for(run):
    groups, _ = runs.load([str(run)])
    [shown] = choose(groups, Wanted())
    assert [step.number for step in shown.steps] == [1, 3, 9]
    assert [(s.total, s.correct, s.wrong, s.clipped, len(s.responses)) for s in shown.steps] == [(16, 8, 8, 8, 8)] * 3
    assert shown.thresholds == (0.8, 1.0)  # low: of the run's settings
    assert [s.band for s in shown.steps[0].responses[0].segments] == ["high", "low", "low", None]
    [shown] = choose(groups, Wanted(steps=(2,), per_step=3))
    assert [(step.number, len(step.responses)) for step in shown.steps] == [(2, 3)]
    with pytest.raises(NoStep, match=r"no run has a rollout dump of step 4; there are those of the steps 1 to 3, 9\."):
        choose(groups, Wanted(steps=(1, 4)))


def test_dumps_are_found_where_the_settings_say_and_of_the_first_seed_that_has_some(tmp_path):
    fake_runs.quickstart(tmp_path / "a")
    fake_runs.quickstart(tmp_path / "b", **{FOLDER: str(fake_runs.rollouts(tmp_path / "elsewhere"))})
    fake_runs.quickstart(tmp_path / "c", "grpo", **{FOLDER: "${oc.env:SOMEWHERE}/rollouts"})
    groups, _ = runs.load([str(tmp_path / name) for name in "abc"])
    assert [(of.label, of.style, of.folder) for of in choose(groups, Wanted())] == [("sspo", 0, tmp_path / "elsewhere")]


# The pages


@pytest.fixture
def no_figures(monkeypatch):
    """They take ten seconds, and are other tests' subject."""
    for module in (page_module, write_module):
        monkeypatch.setattr(module, "SECTIONS", ())


@pytest.mark.usefixtures("no_figures")
def test_a_report_shows_hostile_responses_as_text(run, tmp_path):
    done = CliRunner().invoke(command, [str(run), "--out", str(tmp_path / "r.html"), "--responses", "2"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text()
    assert text.count('class="response"') == 6
    assert text.count("&lt;b onclick=alert(1)&gt;bold&lt;/b&gt;") == 6
    assert text.count("&lt;i&gt;</p>") == 6  # of the prompts
    assert not set("\0\x1b\u202e\u202c") & set(text)
    assert "<script>alert" not in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("no_figures")
def test_options_of_responses(run, tmp_path):
    def report(*options: str) -> tuple[int, str, str]:
        out = tmp_path / "r.html"
        out.unlink(missing_ok=True)
        done = CliRunner().invoke(command, [str(run), "--out", str(out), *options])
        return done.exit_code, done.stderr, out.read_text() if out.exists() else ""

    code, _, text = report("--responses", "0")
    assert (code, 'id="responses"' in text) == (0, False)
    for options, said in (
        (["--steps", "1,4"], "--steps: no run has a rollout dump of step 4"),
        (["--steps", "1,x"], "'1,x' is not a list of integers"),
        (["--responses", "0", "--steps", "1"], "leave out --steps"),
        (["--model", str(run)], f"{run} has no tokenizer"),
    ):
        code, stderr, text = report(*options)
        assert (code, text) == (2, ""), options
        assert said in stderr
    for file in (run / "rollouts").iterdir():
        file.unlink()
    code, _, text = report()
    assert code == 0
    assert f"<b>No rollout dumps</b> of any run here. {FOLDER}=FOLDER makes verl write" in text


def test_analyze_writes_a_page_of_any_text(by_bytes, tmp_path):
    rows = [{"answer": f"{fake_runs.HOSTILE}b{i}", "acc": i % 2, "h": [0.1] * 99} for i in range(50)]
    length = len(rows[0]["answer"].encode())
    for row in rows:
        row["h"] = [1.5] * (length - 2) + [0.2] * (len(row["answer"].encode()) - length + 2)
    source, page = tmp_path / "text.jsonl", tmp_path / "page.html"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_bytes.tokenizer.save_pretrained(tmp_path / "model")
    model = ["--model", str(tmp_path / "model"), "--entropy-column", "h"]
    for options, tints in (([], 0), (model, 6)):
        arguments = [str(source), "--text", "answer", "--html", str(page), "--responses", "6", *options]
        done = CliRunner().invoke(analyze_command, arguments)
        assert done.exit_code == 0, done.output
        text = page.read_text()
        assert f"{page} is written" in done.stderr
        assert text.count('class="response"') == 6
        assert text.count("✓ correct") == text.count("✗ wrong") == 3
        tinted_as = [text.count(f'<li class="{band}"><span class="about">') for band in ("high", "low")]
        assert tinted_as == [tints] * 2
        assert "<b onclick" not in text
        assert "<script" not in text
        assert re.findall(r"(?:src|href)=\"(?!data:,\")|url\(|@import", text) == []
    done = CliRunner().invoke(analyze_command, [str(source), "--text", "answer", "--html", str(tmp_path / "no" / "p")])
    assert done.exit_code == 2
    assert "--html: " in done.stderr
