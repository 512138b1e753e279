"""`sspo analyze`: golden numbers by hand, a slow reference over text, bad lines, bounded memory, the command itself."""

import gzip
import json
import random
import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import reference
from click.testing import CliRunner

from sspo_verl.segmenters import SEGMENTERS
from sspo_verl.segmenters.registry import Factory
from sspo_verl.tools import segmenter_option
from sspo_verl.tools.analyze import cut as cut_module
from sspo_verl.tools.analyze import read as read_module
from sspo_verl.tools.analyze import run as run_module
from sspo_verl.tools.analyze.command import command
from sspo_verl.tools.analyze.count import Histogram
from sspo_verl.tools.analyze.cut import ByTokens, by_lines
from sspo_verl.tools.analyze.fields import Columns
from sspo_verl.tools.analyze.read import Row, columns, expand, lookup, rows
from sspo_verl.tools.analyze.run import analyze
from sspo_verl.tools.analyze.thresholds import defaults
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

# Two responses of a byte a token: "a\nbb\n" is a|bb with 2 and 3 tokens, "ccc" is one segment of 3, "\n\nd" one of 3.
GOLDEN = [
    {"output": "a\nbb\n", "acc": 1.0, "score": -1.0, "data_source": "x"},
    {"output": "ccc", "acc": 0.0, "score": 1.0, "data_source": "x"},
    {"output": "\n\nd", "score": 0.5, "data_source": "y"},
    {"output": "", "score": 0.0, "data_source": "y"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer.build()


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def merging_tokenizer():
    """BPE with merges learnt from lines, and a pre-tokenizer as GPT-2's: tokens span characters, and line breaks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    rng = random.Random(0)
    core.train_from_iterator((random_text(rng) for _ in range(300)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


def random_text(rng):
    words = ("so", "x = 12", "größer", "漢字", "\U0001f389", "  ", "\t", "\\frac{1}{2}", "ab" * 5)
    ends = ("\n", "\n\n", "\r\n", " \n", ".", " ", "\n \n", "\u2028")
    return "".join(rng.choice(words) + rng.choice(ends) for _ in range(rng.randint(0, 12)))


def write(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def analyze_json(*args):
    result = call(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# Numbers


def test_golden_numbers(tmp_path, model):
    doc = analyze_json(write(tmp_path / "0.jsonl", GOLDEN), "--model", model)
    total = doc["all"]
    assert (doc["rows"], total["responses"], total["empty"], doc["skipped"]) == (4, 4, 1, {})
    # Tokens 5, 3, 3; line breaks 2, 0, 2; segments 2, 1, 1; tokens per segment 2, 3, 3, 3.
    # p95 of n sorted values is at rank 0.95 (n - 1): 1.9 of three, so 3 + 0.9 * 2; 2.85 of four, so 3.
    assert total["tokens_per_response"] == {
        "n": 3,
        "mean": 11 / 3,
        "min": 3,
        "p50": 3.0,
        "p95": pytest.approx(4.8),
        "max": 5,
    }
    assert total["line_breaks_per_response"] == {"n": 3, "mean": 4 / 3, "min": 0, "p50": 2.0, "p95": 2.0, "max": 2}
    assert total["segments_per_response"] == {
        "n": 3,
        "mean": 4 / 3,
        "min": 1,
        "p50": 1.0,
        "p95": pytest.approx(1.9),
        "max": 2,
    }
    assert total["tokens_per_segment"] == {"n": 4, "mean": 11 / 4, "min": 2, "p50": 3.0, "p95": 3.0, "max": 3}
    assert total["single_segment"] == {"n": 2, "of": 3, "share": 2 / 3}
    assert total["entropy_bands"] is None
    assert total["clipped_segments"] is None
    # acc where there is one, else score: right, wrong, right, wrong.
    correct, wrong = doc["by_correct"]["correct"], doc["by_correct"]["wrong"]
    assert list(doc["by_correct"]) == ["correct", "wrong"]
    assert (correct["responses"], correct["empty"], correct["segments_per_response"]["mean"]) == (2, 0, 1.5)
    assert (wrong["responses"], wrong["empty"], wrong["tokens_per_response"]["mean"]) == (2, 1, 3.0)
    x, y = doc["by_source"]["x"], doc["by_source"]["y"]
    assert (x["responses"], x["tokens_per_response"]["mean"], x["single_segment"]["share"]) == (2, 4.0, 0.5)
    assert (y["responses"], y["empty"], y["single_segment"]["share"]) == (2, 1, 1.0)


def test_without_a_model_the_text_is_cut_at_its_lines(tmp_path):
    total = analyze_json(write(tmp_path / "0.jsonl", GOLDEN))["all"]
    assert total["tokens_per_response"] is None
    assert total["tokens_per_segment"] is None
    assert total["segments_per_response"]["mean"] == 4 / 3
    assert total["single_segment"] == {"n": 2, "of": 3, "share": 2 / 3}


def test_quantiles_are_those_of_numpy():
    rng = random.Random(0)
    for n in (1, 2, 3, 10, 999):
        values = [rng.choice((rng.randint(0, 5), rng.randint(0, 10**6))) for _ in range(n)]
        histogram = Histogram()
        for start in range(0, n, 7):
            part = Histogram()
            part.add(values[start : start + 7])
            histogram.merge(part)
        shares = [0.0, 0.05, 1 / 3, 0.5, 0.95, 0.995, 1.0]
        assert histogram.quantiles(shares) == pytest.approx(np.quantile(values, shares).tolist(), rel=1e-12)
        assert histogram.summary()["mean"] == pytest.approx(np.mean(values), rel=1e-12)


# The slow reference: one response at a time, plain loops


def reference_cut(tokenizer, text):
    """Tokens of each segment."""
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    ids = reference.segments_of_row(
        [tokenizer.decode([i]) for i in token_ids], [i in special for i in token_ids], [1] * len(token_ids)
    )
    return [ids.count(j) for j in range(max(ids, default=-1) + 1)]


@pytest.mark.parametrize("which", ["tokenizer", "merging_tokenizer"])
def test_cuts_are_those_of_the_reference(which, request):
    tokenizer = request.getfixturevalue(which)
    rng = random.Random(1)
    texts = ["", "\n", " ", "a", "a\n", "\na", "<|im_end|>", "a\n<|im_end|>", *(random_text(rng) for _ in range(400))]
    for text, cut in zip(texts, ByTokens(tokenizer)(texts), strict=True):
        assert cut.tokens.tolist() == reference_cut(tokenizer, text)
        assert cut.segments == len(cut.tokens)
    for text, cut in zip(texts, by_lines(texts), strict=True):
        assert cut.segments == len(reference.lines_of_text(text))


def test_a_tokenizer_that_would_truncate_does_not(tokenizer):
    limited = byte_tokenizer.build()
    limited.backend_tokenizer.enable_truncation(4)
    limited.backend_tokenizer.enable_padding(length=20)
    (cut,) = ByTokens(limited)(["abcdefgh\nij"])
    assert cut.tokens.tolist() == [9, 2]


@pytest.mark.parametrize("which", ["tokenizer", "merging_tokenizer"])
def test_long_texts_are_cut_piece_by_piece_into_the_same(which, request, monkeypatch):
    tokenizer = request.getfixturevalue(which)
    rng = random.Random(2)
    texts = ["".join(random_text(rng) for _ in range(60)) for _ in range(20)]
    full = [cut.tokens.tolist() for cut in ByTokens(tokenizer)(texts)]
    monkeypatch.setattr(cut_module, "PIECE", 300)
    monkeypatch.setattr(cut_module, "SEAM", 40)
    by_pieces = ByTokens(tokenizer)
    assert all(len(list(by_pieces._pieces(text))) > 3 for text in texts)
    assert [cut.tokens.tolist() for cut in by_pieces(["a", *texts, "b"])[1:-1]] == full
    # Blank lines alone are not a place to cut at: they would be segments of their own.
    (no_place,) = by_pieces(["a" * 1000])
    assert "over 600 characters without a line break" in no_place
    (no_place,) = by_pieces(["\n" * 1000])
    assert "over 600 characters without a line break" in no_place


def test_groups_match_plain_loops(tmp_path, tokenizer, monkeypatch):
    """Over many random rows, in small batches: the same counts as a loop with a list for each group."""
    rng = random.Random(3)
    values = [
        {"output": random_text(rng), "score": rng.choice((0, 1, True, False, -1.0, None, "1", float("nan")))}
        | ({"data_source": rng.choice(("a", "b", None))} if rng.random() < 0.8 else {})
        for _ in range(300)
    ]
    path = write(tmp_path / "rows.jsonl", values)
    lists = defaultdict(lambda: {"tokens": [], "segments": [], "line_breaks": [], "segment_tokens": [], "empty": 0})
    for value in values:
        score = value["score"]
        known = isinstance(score, (bool, int, float)) and score == score
        correct = ("correct" if score > 0 else "wrong") if known else "unknown"
        source = value.get("data_source") or "(no source)"
        sizes = reference_cut(tokenizer, value["output"])
        for name in ("all", correct, source):
            group = lists[name]
            if not sizes:
                group["empty"] += 1
                continue
            group["tokens"].append(sum(sizes))
            group["segments"].append(len(sizes))
            group["segment_tokens"] += sizes
            group["line_breaks"].append(sum(c == "\n" for c in value["output"]))
    for size in (1, 7, 512):
        monkeypatch.setattr(run_module, "BATCH_RESPONSES", size)
        analysis = analyze([path], Columns(), ByTokens(tokenizer), 0.5, 1.0)
        groups = {"all": analysis.group(), **analysis.by_correct(), **analysis.by_source()}
        assert set(groups) == {"all", "correct", "wrong", "unknown", "a", "b", "(no source)"} == set(lists)
        for name, group in groups.items():
            assert group.empty == lists[name]["empty"]
            for field in ("tokens", "segments", "line_breaks", "segment_tokens"):
                assert sorted(getattr(group, field).counts.elements()) == sorted(lists[name][field])


def test_many_sources_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_SOURCES", 2)
    path = write(tmp_path / "rows.jsonl", [{"output": "a", "data_source": s} for s in ("a", "b", "c", "a", "d")])
    doc = analyze_json(path)
    assert {name: g["responses"] for name, g in doc["by_source"].items()} == {"(all other sources)": 2, "a": 2, "b": 1}


# Entropy bands and clips


def test_bands_and_clips_of_a_rollout_dump(tmp_path, model):
    assert defaults() == (0.5, 1.0)
    values = [
        {
            "output": "a\nb\nc\nd",
            "acc": 1,
            "sspo_segments": 4,
            "sspo_segment_tokens": [2, 2, 2],
            "sspo_segment_entropy": [0.4999, 0.5, 1.0],
            "sspo_segment_clip": [-1, 0, 1],
        },
        {
            "output": "e\nf",
            "acc": 0,
            "sspo_segments": 3,
            "sspo_segment_tokens": [2, 1, 5],
            "sspo_segment_entropy": [1.0001, None, 0.1],
            "sspo_segment_clip": [1, 0, None],
        },
        {
            "output": "g",
            "acc": 0,
            "sspo_segments": None,
            "sspo_segment_tokens": None,
            "sspo_segment_entropy": None,
            "sspo_segment_clip": None,
        },
        {"output": "h", "acc": 0, "sspo_segments": 1, "sspo_segment_tokens": [1]},
        {"output": "", "acc": 0, "sspo_segments": 1, "sspo_segment_tokens": [1]},
    ]
    path = write(tmp_path / "1.jsonl", values)
    doc = analyze_json(path, "--model", model)
    bands = doc["all"]["entropy_bands"]
    assert doc["partly_used"] == {}
    assert (bands["of"], bands["low"]["n"], bands["mid"]["n"], bands["high"]["n"]) == (5, 2, 2, 1)
    assert bands["low"]["share"] == 2 / 5
    assert bands["low"]["clipped_segments"]["low"] == {"n": 1, "share": 1.0}  # of the one whose clip is known
    assert bands["mid"]["clipped_segments"]["high"] == {"n": 1, "share": 0.5}
    clipped = doc["all"]["clipped_segments"]
    assert clipped == {
        "of": 5,
        "low": {"n": 1, "share": 1 / 5},
        "high": {"n": 2, "share": 2 / 5},
        "all": {"n": 3, "share": 3 / 5},
    }
    # Tokens: 2 clipped low, 2 + 2 high, 2 + 1 not.
    assert doc["all"]["clipped_tokens"]["low"] == {"n": 2, "share": 2 / 9}
    assert doc["all"]["clipped_tokens"]["high"] == {"n": 4, "share": 4 / 9}
    assert doc["by_correct"]["correct"]["entropy_bands"]["high"]["n"] == 0
    # "e\nf" is two segments, not three, and three of four (and all of the other's three) are named.
    assert any(note.startswith("1 of 4 responses had a different number of segments") for note in doc["notes"])
    assert any("6 of 7" in note for note in doc["notes"])

    bands = analyze_json(path, "--entropy-low", 0, "--entropy-high", 0.45)["all"]["entropy_bands"]
    assert (bands["low"]["n"], bands["mid"]["n"], bands["high"]["n"]) == (0, 1, 4)


def test_bands_from_entropies_of_tokens(tmp_path, model):
    values = [
        {"output": "a\nbb", "h": [0.0, 1.0, 1.0, 1.5]},  # means 0.5 and 1.25: mid and high
        {"output": "a\nbb", "h": [0.0, 0.9, 1.0, 1.0, 0.4]},  # an end token more: 0.45 and 0.8, low and mid
        {"output": "", "h": [0.1]},  # the end token alone: low
        {"output": "a\nbb", "h": [None, 0.0, 0.0, 0.0]},  # the first is not known; low
        {"output": "a\nbb", "h": [0.0] * 3},
        {"output": "a\nbb", "h": [0.0] * 6},
        {"output": "a\nbb", "h": "0.5"},
        {"output": "a\nbb", "h": None},
        {"output": "a\nbb"},
    ]
    path = write(tmp_path / "0.jsonl", values)
    doc = analyze_json(path, "--model", model, "--entropy-column", "h")
    bands = doc["all"]["entropy_bands"]
    assert (bands["of"], bands["low"]["n"], bands["mid"]["n"], bands["high"]["n"]) == (6, 3, 2, 1)
    assert doc["all"]["clipped_segments"] is None
    assert doc["all"]["responses"] == 9
    kinds = {kind: found["first"] for kind, found in doc["partly_used"].items()}
    assert list(kinds.values()) == [[f"{path}:5", f"{path}:6"], [f"{path}:7"]]
    assert "--model" in call(path, "--entropy-column", "h").stderr


def test_dump_fields_that_do_not_fit_are_named(tmp_path):
    good = {"output": "a\nb", "sspo_segments": 2, "sspo_segment_entropy": [0.1, 0.1], "sspo_segment_clip": [0, 0]}
    bad = [
        {"sspo_segments": 1},
        {"sspo_segments": "2"},
        {"sspo_segment_clip": [0]},
        {"sspo_segment_clip": [0, 2]},
        {"sspo_segment_entropy": [0.1, "0.1"]},
        {"sspo_segment_entropy": 0.1},
        {"sspo_segment_tokens": [1, 0]},
    ]
    path = write(tmp_path / "0.jsonl", [good, *(good | one for one in bad)])
    doc = analyze_json(path)
    (found,) = doc["partly_used"].values()
    assert found == {"n": 7, "first": [f"{path}:{line}" for line in range(2, 7)]}
    assert doc["all"]["responses"] == 8
    assert doc["all"]["clipped_segments"]["of"] == 2


# Files


BAD_LINES = {
    "not JSON": [b'{"output": "a"', b"nothing", b'{"output": "a"} x', b"[" * 100_000],
    "not an object": [b"[1]", b'"output"', b"null", b"3"],
    "no column 'output'": [b"{}", b'{"input": "a"}'],
    "'output' is null": [b'{"output": null}'],
    "'output' is not a string": [b'{"output": 3}', b'{"output": ["a"]}', b'{"output": {"a": 1}}'],
    "'output' is not Unicode (half of a surrogate pair)": [b'{"output": "\\ud83d"}'],
    "not UTF-8": [b'{"output": "\xff"}'],
    "blank line": [b"", b"  \t"],
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_lines_are_counted_and_named(tmp_path, model, end, zipped):
    good = '{"output": "漢字\u2028 \\n x\\r\U0001f389"}'.encode()  # U+2028 and a carriage return end no line of JSONL
    lines, wanted = [b"\xef\xbb\xbf" + good], {}
    for kind, bad in BAD_LINES.items():
        wanted[kind] = {"n": len(bad), "first": []}
        for line in bad:
            lines.append(line)
            wanted[kind]["first"].append(len(lines))
            lines.append(good)
    data = end.join(lines)  # the last line has no end
    path = tmp_path / ("0.jsonl.gz" if zipped else "0.jsonl")
    path.write_bytes(gzip.compress(data) if zipped else data)
    doc = analyze_json(path, "--model", model)
    for kind in wanted.values():
        kind["first"] = [f"{path}:{line}" for line in kind["first"]]
    assert doc["skipped"] == wanted
    assert doc["rows"] == len(lines)
    assert doc["all"]["responses"] == sum(line.endswith(good) for line in lines)
    assert doc["all"]["tokens_per_response"]["min"] == len("漢字\u2028 \n x\r\U0001f389".encode())
    assert doc["all"]["line_breaks_per_response"]["max"] == 1
    stderr = call(path, "--model", model).stderr
    assert f"4 rows not counted: not JSON ({path}:2, {path}:4" in stderr
    assert all(kind in stderr for kind in wanted)


def test_first_of_many_bad_lines_are_named(tmp_path):
    path = tmp_path / "0.jsonl"
    path.write_text('{"output": "a"}\n' + "x\n" * 100)
    assert analyze_json(path)["skipped"] == {
        "not JSON": {"n": 100, "first": [f"{path}:{line}" for line in range(2, 7)]}
    }
    assert ":6, ...)" in call(path).stderr


def test_parquet_and_jsonl_give_equal_numbers(tmp_path, model):
    rng = random.Random(4)
    values = [
        {
            "reply": {"by": {"text": random_text(rng) if i % 17 else None}},
            "right": rng.choice((True, False, None)),
            "set": rng.choice(("a", "b")),
            "h": None,
            "junk": [i],
        }
        for i in range(500)
    ]
    for value in values[:200]:
        value["h"] = [rng.random() * 2 for _ in (value["reply"]["by"]["text"] or "").encode()]
    write(tmp_path / "a.jsonl", values)
    table = pyarrow.Table.from_pylist(values)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=33)
    pyarrow.parquet.write_table(table, tmp_path / "one.parquet")
    args = ("--model", model, "--text", "reply.by.text", "--correct-column", "right", "--source-column", "set")
    docs = []
    for name in ("a.jsonl", "a.parquet", "one.parquet"):
        doc = analyze_json(tmp_path / name, *args, "--entropy-column", "h")
        assert doc["skipped"]["'reply.by.text' is null"]["n"] == 30
        assert doc["skipped"]["'reply.by.text' is null"]["first"][:2] == [f"{tmp_path / name}:{i}" for i in (1, 18)]
        assert doc["all"]["entropy_bands"]["of"] > 500
        docs.append({key: value for key, value in doc.items() if key not in ("files", "skipped")})
    assert docs[0] == docs[1] == docs[2]


def test_columns_and_lookup(tmp_path):
    assert lookup({"a": {"b": {"c": 1}}}, "a.b.c") == 1
    assert lookup({"a.b": 2, "a": {"b": 3}}, "a.b") == 2
    assert lookup({"a": None}, "a") is None
    for value in ({}, {"a": 1}, {"a": {"c": 1}}):
        assert lookup(value, "a.b") is read_module.MISSING
    values = [{"a": {"b": 1}, "c": "x"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "a.parquet")
    assert columns(tmp_path / "a.parquet") == columns(write(tmp_path / "a.jsonl", values)) == ["a", "a.b", "c"]


def test_folders_and_files_named_twice(tmp_path):
    for step in (0, 5, 10, 100):
        write(tmp_path / f"{step}.jsonl", [{"output": str(step)}])
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "1.jsonl", [{"output": "a"}])
    assert [path.name for path in expand([tmp_path])] == ["0.jsonl", "5.jsonl", "10.jsonl", "100.jsonl"]
    assert len(expand([tmp_path, tmp_path / "5.jsonl", tmp_path / "more"])) == 5
    assert analyze_json(tmp_path, tmp_path)["all"]["responses"] == 4


def test_a_file_that_breaks_off_counts_as_far_as_it_goes(tmp_path):
    rng = random.Random(5)
    lines = [json.dumps({"output": rng.randbytes(50).hex()}) + "\n" for _ in range(2000)]
    full = gzip.compress("".join(lines).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(full[: len(full) // 2])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    write(tmp_path / "c.jsonl", [{"output": "a"}])
    doc = analyze_json(tmp_path)
    assert 500 < doc["all"]["responses"] < 1500
    first = [where for found in doc["skipped"].values() for where in found["first"]]
    assert all("unreadable from here on" in kind or kind == "not JSON" for kind in doc["skipped"])
    assert f"{tmp_path / 'b.parquet'}:1" in first
    assert any(where.startswith(f"{tmp_path / 'a.jsonl.gz'}:") for where in first)


def test_limit(tmp_path):
    write(tmp_path / "0.jsonl", [{"output": "a"}] * 3)
    write(tmp_path / "1.jsonl", [{"output": "a\nb"}] * 3)
    doc = analyze_json(tmp_path, "--limit", 4)
    assert doc["all"]["responses"] == 4
    assert doc["all"]["segments_per_response"]["mean"] == 5 / 4
    assert any("--limit" in note for note in doc["notes"])
    assert not any("--limit" in note for note in analyze_json(tmp_path, "--limit", 6)["notes"])


# Memory


def peak_of(action):
    tracemalloc.start()
    try:
        result = action()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_file_of_30_mb_is_never_in_memory_at_once(tmp_path):
    line = json.dumps({"output": ("x = 3 " * 50 + "\n") * 3, "score": 1}) + "\n"
    path = tmp_path / "big.jsonl"
    path.write_text(line * (30 * 2**20 // len(line)))
    expected = path.stat().st_size // len(line)
    n, peak = peak_of(lambda: sum(1 for _ in rows(path, [])))
    assert n == expected
    assert peak < 2**20
    analysis, peak = peak_of(lambda: analyze([path], Columns(), by_lines, 0.5, 1.0))
    assert analysis.group().responses == expected
    assert analysis.group().segments.sum == 3 * expected
    assert peak < 4 * 2**20


def test_parquet_is_read_in_parts_of_bounded_size(tmp_path, monkeypatch):
    path = tmp_path / "big.parquet"
    values = [{"output": f"{i:04d} " * 5000} for i in range(1000)]
    # In one row group, but in pages of 1 MB: a page is what Arrow has to hold.
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(values), path, use_dictionary=False, compression="none", write_batch_size=10
    )
    size = path.stat().st_size
    assert size > 20 * 2**20
    monkeypatch.setattr(read_module, "PARQUET_BATCH", 2**20)
    before, most, n = pyarrow.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for n, row in enumerate(rows(path, ["output"]), 1):
        assert row.value == values[n - 1]
        most = max(most, pyarrow.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 1000
    assert most < size / 3  # Arrow's own
    assert peak < size / 3  # Python's


def test_batches_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "BATCH_RESPONSES", 10)
    monkeypatch.setattr(run_module, "BATCH_WEIGHT", 1000)
    sizes = []

    def cutter(texts):
        sizes.append((len(texts), sum(map(len, texts))))
        return by_lines(texts)

    path = write(tmp_path / "0.jsonl", [{"output": "a" * n} for n in [1] * 25 + [400] * 5 + [5000] * 2])
    assert analyze([path], Columns(), cutter, 0.5, 1.0).group().responses == 32
    assert sizes == [(10, 10), (10, 10), (7, 805), (2, 800), (1, 400), (1, 5000), (1, 5000)]


def test_a_line_over_the_limit_is_named_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "LINE_LIMIT", 100)
    fits = '{"output": "' + "a" * 85 + '"}'
    assert len(fits) + 1 == 100
    path = tmp_path / "0.jsonl"
    path.write_text("\n".join([fits, fits + " ", '{"output": "' + "a" * 1000 + '"}', fits, "x" * 300]))
    found = [row if row.value is None else row.where for row in rows(path, [])]
    too_long = "line over 0 MiB"
    assert found == [
        f"{path}:1",
        Row(f"{path}:2", None, too_long),
        Row(f"{path}:3", None, too_long),
        f"{path}:4",
        Row(f"{path}:5", None, too_long),
    ]


def test_a_line_of_50_mb(tmp_path, model):
    line = "x = 3 " * 150 + "\n"
    text = line * (2**20 // len(line))
    path = write(
        tmp_path / "0.jsonl",
        [{"output": "a\nb"}, {"output": "a\nb", "input": "x" * (50 * 2**20)}, {"output": text}, {"output": "c"}],
    )
    total = analyze_json(path, "--model", model)["all"]
    assert total["responses"] == 4
    assert total["segments_per_response"]["max"] == 2**20 // len(line)
    assert total["tokens_per_segment"]["max"] == len(line)
    write(path, [{"output": line * (50 * 2**20 // len(line))}])
    assert analyze_json(path)["all"]["segments_per_response"]["max"] == 50 * 2**20 // len(line)


# Several segmenters


def test_segmenters_side_by_side(tmp_path, model):
    path = write(tmp_path / "0.jsonl", [{"output": "a. b\ncc"}, {"output": "ddd"}, {"output": ""}, {"output": "e. f."}])
    names = ["line_break", "sentence", "token", "fixed:2", "regex:[ae]"]
    found = analyze_json(path, "--model", model, *(part for name in names for part in ("--segmenter", name)))
    of = found["segmenters"]
    assert list(of) == names
    assert {name: one["segments_per_response"]["mean"] for name, one in of.items()} == {
        "line_break": 4 / 3,
        "sentence": 6 / 3,
        "token": 15 / 3,
        "fixed:2": 9 / 3,
        "regex:[ae]": 5 / 3,
    }
    assert {name: one["single_segment"] for name, one in of.items()} == {
        "line_break": 2 / 3,
        "sentence": 1 / 3,
        "token": 0,
        "fixed:2": 0,
        "regex:[ae]": 1 / 3,
    }
    # a. | b\ncc cut at its line break, ddd, e. | f.
    assert of["sentence"]["tokens_per_segment"]["n"] == 6
    assert of["sentence"]["tokens_per_segment"]["p50"] == 2.5
    result = CliRunner().invoke(
        command, [str(path), "--model", str(model), "--segmenter", "token", "--segmenter", "turn"]
    )
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()[2:]] == [["token", "3"], ["turn", "3"]]


def test_one_segmenter_takes_the_place_of_line_break(tmp_path, model):
    path = write(tmp_path / "0.jsonl", [{"output": "a. b\ncc"}])
    assert analyze_json(path, "--model", model, "--segmenter", "sentence")["all"]["segments_per_response"]["mean"] == 3
    longest = analyze_json(path, "--model", model, "--segment-max-tokens", 2)["all"]["tokens_per_segment"]["max"]
    assert longest == 2


def test_the_segmenter_entropy_takes_the_entropies_of_the_file(tmp_path, model):
    rows = [{"output": "abcd", "h": [0.0, 0.1, 3.0, 0.2]}, {"output": "ab", "h": [0.1, 0.2, 9.0]}, {"output": "a"}]
    path = write(tmp_path / "0.jsonl", rows)
    found = analyze_json(path, "--model", model, "--segmenter", "entropy:0.3", "--entropy-column", "h")
    assert found["segmenters"]["entropy:0.3"]["responses"] == 2
    assert found["segmenters"]["entropy:0.3"]["segments_per_response"]["max"] == 2
    assert found["skipped"]["no entropy for each token, which the segmenter entropy needs"]["n"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--segmenter", "sentence"], "need --model"),
        (["--model", "MODEL", "--segmenter", "words"], "--segmenter: segmenter=words is unknown"),
        (["--model", "MODEL", "--segmenter", "fixed"], "segment_tokens must be set"),
        (["--model", "MODEL", "--segmenter", "fixed:x"], "segment_tokens must be a number"),
        (["--model", "MODEL", "--segmenter", "turn:3"], "takes no setting"),
        (["--model", "MODEL", "--segmenter", "entropy:0.1"], "--entropy-column"),
        (["--model", "MODEL", "--segmenter", "token", "--segmenter", "turn", "--html", "x.html"], "one --segmenter"),
    ],
)
def test_a_segmenter_that_cannot_be_is_bad_usage(tmp_path, model, arguments, said):
    path = write(tmp_path / "0.jsonl", [{"output": "a"}])
    result = CliRunner().invoke(command, [str(path), *(str(model) if a == "MODEL" else a for a in arguments)])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", "").split())


def test_a_segmenter_of_two_settings_is_not_one_value(monkeypatch):
    two = Factory(SEGMENTERS["fixed"].make, ("segment_tokens", "segment_regex"))
    monkeypatch.setitem(SEGMENTERS, "two", two)
    with pytest.raises(ValueError, match="segmenter=two takes segment_tokens and segment_regex, which one value"):
        segmenter_option.settings_of("two:3")


# The command


def test_errors_name_what_is_missing(tmp_path, model):
    path = write(tmp_path / "0.jsonl", [{"question": "?", "answer": {"text": "a\nb"}, "level": 1}])
    empty_folder = tmp_path / "empty"
    empty_folder.mkdir()
    cases = [
        ((tmp_path / "1.jsonl", "--text", "answer"), ["1.jsonl", "not there"]),
        ((empty_folder,), [str(empty_folder), ".parquet"]),
        ((path,), [str(path), "'output'", "question, answer, answer.text, level", "--text"]),
        ((path, "--text", "question", "--source-column", "set"), ["--source-column", "'set'", "level"]),
        ((path, "--text", "question", "--correct-column", "ok"), ["--correct-column", "'ok'", "level"]),
        ((path, "--text", "question", "--entropy-column", "h", "--model", model), ["--entropy-column", "'h'"]),
        ((path, "--text", "question", "--model", empty_folder), ["--model", str(empty_folder), "tokenizer"]),
        ((path, "--text", "question", "--model", tmp_path / "nothing"), ["--model", "nothing"]),
        ((path, "--text", "question", "--entropy-low", 2), ["--entropy-low (2)", "--entropy-high (1)"]),
        ((path, "--text", "question", "--png", tmp_path / "no" / "a.png"), ["--png", str(tmp_path / "no")]),
        ((path, "--text", "question", "--limit", 0), ["--limit"]),
        ((path, "--text", "question", "--entropy-low", "nan"), ["--entropy-low", "'nan' is not a number"]),
        ((path, "--text", "question", "--entropy-high", "nan"), ["--entropy-high", "'nan' is not a number"]),
        ((path, "--text", "question", "--suggest", "nan"), ["--suggest", "'nan' is not a number"]),
    ]
    for args, words in cases:
        result = call(*args)
        assert result.exit_code == 2, args
        assert result.stdout == ""
        message = " ".join(result.stderr.split())
        assert all(word in message for word in words), message
    assert call().exit_code == 2

    assert call(path, "--text", "answer.text", "--source-column", "level").exit_code == 0


def test_nothing_readable_is_exit_code_1(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    result = call(tmp_path / "a.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No response could be read" in result.stderr
    (tmp_path / "a.jsonl").write_text("x\n\n")
    result = call(tmp_path / "a.jsonl", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["skipped"]["not JSON"]["n"] == 1
    assert f"blank line ({tmp_path / 'a.jsonl'}:2)" in result.stderr


def test_table_in_a_pipe_is_plain(tmp_path, model):
    values = [{**value, "data_source": "[bold]x[/bold]"} for value in GOLDEN]
    values[0] |= {"sspo_segments": 2, "sspo_segment_entropy": [0.1, 2.0], "sspo_segment_clip": [-1, 0]}
    result = call(write(tmp_path / "0.jsonl", values), "--model", model)
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    place = lines.index(["tokens", "per", "response"])
    assert lines[place + 1 : place + 5] == [
        ["all", "3", "3.7", "3", "3.0", "4.8", "5"],
        ["correct", "2", "4.0", "3", "4.0", "4.9", "5"],
        ["wrong", "1", "3.0", "3", "3.0", "3.0", "3"],
        ["source", "[bold]x[/bold]", "3", "3.7", "3", "3.0", "4.8", "5"],
    ]
    assert ["low", "entropy", "1", "50.0%", "100.00%", "100.00%", "0.00%"] in lines
    assert ["all", "3", "66.7%"] in lines
    assert "1 empty responses are counted" in result.stdout
    assert "Correct: acc > 0, or score > 0 where there is none." in result.stdout


@pytest.mark.parametrize("with_model", [False, True])
def test_png(tmp_path, model, with_model):
    import matplotlib.image

    values = [{"output": "a\n" * (i % 7) + "b" * i, "acc": i % 2} for i in range(100)]
    for value in values[:50]:
        value |= {"sspo_segments": 9, "sspo_segment_entropy": [0.1, 0.7], "sspo_segment_clip": [0, 1]}
    path = write(tmp_path / "0.jsonl", values)
    result = call(path, "--png", tmp_path / "a.png", *(("--model", model) if with_model else ()))
    assert result.exit_code == 0
    assert "a.png is written" in result.stderr
    pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert pixels.shape == (700, 1000, 3)
    green, red = (27 / 255, 127 / 255, 92 / 255), (200 / 255, 85 / 255, 61 / 255)
    # Both colours in each panel that has numbers.
    for row, column, known in ((0, 0, True), (0, 1, with_model), (1, 0, with_model), (1, 1, True)):
        panel = pixels[350 * row : 350 * (row + 1), 500 * column + 120 : 500 * column + 440]
        for colour in (green, red):
            assert bool((np.abs(panel - np.array(colour)).max(axis=2) < 0.02).any()) == known


def test_verl_is_not_imported(tmp_path):
    """Analysis starts in a blink without a model, and never loads the trainer."""
    import subprocess
    import sys

    path = write(tmp_path / "0.jsonl", GOLDEN)
    code = (
        "import sys; from sspo_verl.tools.analyze.command import command; "
        "command([sys.argv[1]], standalone_mode=False); "
        "print(sorted({'verl', 'torch', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert Path(path).exists()
