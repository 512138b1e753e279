"""`sspo eval` on the command line: every bad input is an error of one line, before vLLM starts; the table and JSON."""

import json
import sys

import pytest
from click.testing import CliRunner
from evaluate_parts import FakeGenerator, make_checkpoint, make_data, make_model, write_rows

from sspo_verl import extras
from sspo_verl.plugin.tokenizer import load_tokenizer
from sspo_verl.tools.evaluate import generate, problems, run
from sspo_verl.tools.evaluate.command import command
from sspo_verl.tools.evaluate.problems import Problem
from sspo_verl.tools.evaluate.prompts import render
from sspo_verl.tools.tasks import arithmetic


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), aime24=4, amc23=6, train=3)


@pytest.fixture
def call(model, data, tmp_path, monkeypatch):
    """Runs the command with defaults that are right; fake is what takes vLLM's place."""

    def make(*options, fake=None, out="out", **replaced):
        given = {"--model": str(model), "--data": str(data), "--max-tokens": "40", "--out": str(tmp_path / out)}
        given |= {f"--{name.replace('_', '-')}": str(value) for name, value in replaced.items()}
        monkeypatch.setattr(run, "generate_with_vllm", fake or FakeGenerator())
        arguments = [part for pair in given.items() for part in pair]
        return CliRunner().invoke(command, [*arguments, *options])

    return make


def no_vllm(*arguments):
    raise AssertionError("vLLM was started")


@pytest.mark.parametrize(
    ("options", "replaced", "said"),
    [
        ([], {"model": "nowhere"}, "nowhere is not a folder"),
        ([], {"model": "=x"}, "neither a path nor NAME=PATH"),
        ([], {"data": "nowhere"}, "--data: nowhere is not a folder. `sspo data eval --out nowhere`"),
        ([], {"sets": "aime24,minerva"}, "has no minerva. It has: aime24, amc23, train."),
        ([], {"sets": "aime24,aime24"}, "names aime24 twice"),
        ([], {"sets": ""}, "has no parquet file of a benchmark"),
        (["--greedy"], {"k": 4}, "4 times the same response"),
        ([], {"k": 4, "temperature": 0}, "4 times the same response"),
        (["--greedy"], {"temperature": 0.6}, "exclude each other"),
        (["--greedy"], {"top_p": 0.9}, "--top-p does not apply"),
        ([], {"temperature": 0, "top_p": 0.9}, "--top-p does not apply"),
        ([], {"top_p": 0}, "--top-p"),
        ([], {"k": 0}, "--k"),
        ([], {"temperature": -1}, "--temperature"),
        ([], {"k": 4, "temperature": "nan"}, "'nan' is not a number"),
        ([], {"k": 4, "top_p": "nan"}, "'nan' is not a number"),
        ([], {"max_tokens": 3000}, "takes 128 tokens in all (max_position_embeddings)"),
        ([], {"max_tokens": 120}, "Set --max-tokens to 119 or less"),
        ([], {"answer": "box"}, "--answer='box' is unknown, and as a regular expression it has no group"),
    ],
)
def test_bad_input_is_said_before_vllm_starts(call, tmp_path, options, replaced, said):
    done = call(*options, **replaced, fake=no_vllm)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_without_the_extra_for_mathematics_it_says_so_before_vllm_starts(call, tmp_path, monkeypatch):
    row = arithmetic.verl_row((1, 2, 3, 4), 0, "test") | {"data_source": "gsm8k"}
    write_rows(tmp_path / "math" / "gsm8k.parquet", [row])
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "math_verify" else module)
    error = call(data=tmp_path / "math", fake=no_vllm).exception
    assert isinstance(error, extras.MissingExtra)  # which the console script prints as it is
    assert str(error).startswith("scoring mathematics needs math_verify, which is not installed: pip install")


def test_out_that_is_a_file(call, tmp_path):
    (tmp_path / "out").write_text("")
    done = call(fake=no_vllm)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is a file" in done.stderr


@pytest.mark.parametrize("name", ["merged", "results.json"])
def test_a_models_name_that_out_needs_for_itself(call, model, name):
    done = call(model=f"{name}={model}", fake=no_vllm)
    assert done.exit_code == 2
    assert "calls a part of --out" in done.stderr


def broken_rows():
    row = arithmetic.verl_row((1, 2, 3, 4), 0, "test")
    return [
        ({**row, "prompt": "1+2"}, "no column `prompt` with a list of messages"),
        ({**row, "prompt": [{"role": "user"}]}, "not a list of {role, content}"),
        ({**row, "reward_model": {"style": "rule", "ground_truth": 10}}, "no string reward_model.ground_truth"),
        ({**row, "data_source": 3}, "no string data_source"),
        ({**row, "extra_info": {"index": 0, "template": "chatml"}}, "extra_info.template is 'chatml'"),
    ]


@pytest.mark.parametrize(("row", "said"), broken_rows())
def test_rows_that_are_not_in_the_layout(call, tmp_path, row, said):
    write_rows(tmp_path / "bad" / "amc.parquet", [row])
    done = call(data=tmp_path / "bad", fake=no_vllm)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "amc" in done.stderr


def test_files_that_are_no_parquet_or_empty_or_ambiguous(call, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "amc.parquet").write_text("no parquet")
    assert "is not a parquet file that can be read" in call(data=folder, fake=no_vllm).stderr
    row = arithmetic.verl_row((1, 2, 3, 4), 0, "test")
    write_rows(folder / "amc.parquet", [row, row])
    assert "row 2: extra_info.index 0 occurs twice" in call(data=folder, fake=no_vllm).stderr


def test_a_model_without_chat_template_is_told_of_data_without(call, data, tmp_path):
    bare = make_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    done = call(model=bare, fake=no_vllm)
    assert done.exit_code == 2
    assert "`sspo data eval --template none` makes data without" in done.stderr


def test_the_table(call, model, data, tmp_path):
    done = call("--model", f"second={make_checkpoint(model, tmp_path / 'global_step_3')}", k=4)
    assert done.exit_code == 0, done.output
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["aime24", "(4)", "amc23", "(6)", "average"]
    titles = [row.strip() for row in rows if row.strip() and not row.startswith("  ")]
    assert titles[:8] == [
        "accuracy, % (mean of 4 samples)",
        "pass@2, %",
        "pass@4, %",
        "maj@4, %",
        "mean length, tokens",
        "cut off at the limit, %",
        "without an answer, %",
        "4 sampled per problem (temperature 1, top-p 1), seed 0, at most 40 tokens.",
    ]
    assert sum(row.split()[:1] == ["tiny"] for row in rows) == sum(row.split()[:1] == ["second"] for row in rows) == 7
    doc = json.loads((tmp_path / "out" / "results.json").read_text())
    accuracy = doc["models"][0]["sets"]["amc23"]["accuracy"]
    cell = f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
    assert cell in rows[1]


def test_both_amcs_in_one_average_are_remarked_on(call, data, tmp_path):
    said = "the average counts them twice"
    assert said not in call().stdout
    both = make_data(tmp_path / "both", amc=3, amc23=2)
    assert said in call(data=both, out="both").stdout


def test_json_is_all_there_is_on_stdout(call, tmp_path):
    done = call("--json")
    assert done.exit_code == 0
    doc = json.loads(done.stdout)
    assert doc == json.loads((tmp_path / "out" / "results.json").read_text())
    assert doc["sampling"] == {"k": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 40, "seed": 0}
    assert doc["sets"]["amc23"] == {"problems": 6, "templates": ["chat template"]}
    (one,) = doc["models"]
    assert one["settings"].keys() >= {"model", "temperature", "max_tokens", "dtype", "vllm"}
    mean = (one["sets"]["aime24"]["accuracy"]["value"] + one["sets"]["amc23"]["accuracy"]["value"]) / 2
    assert one["average"]["accuracy"]["value"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("options", "temperature"), [([], 0), (["--k", "2"], 1), (["--temperature", "0.6"], 0.6), (["--top-p", "0.9"], 1)]
)
def test_greedy_or_sampled(call, options, temperature):
    assert json.loads(call("--json", *options).stdout)["sampling"]["temperature"] == temperature


def test_train_is_no_benchmark_unless_it_is_named(call):
    assert list(json.loads(call("--json").stdout)["sets"]) == ["aime24", "amc23"]
    assert list(json.loads(call("--json", sets="train, amc23", out="named").stdout)["sets"]) == ["train", "amc23"]


def test_a_worker_that_dies_is_an_error_with_the_end_of_its_log(model, data, tmp_path, monkeypatch):
    """The real generator; in vLLM's place a process that writes one response, half of another, and crashes."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "pipe = os.fdopen(int(sys.argv[2]), 'w')\n"
        "line = {'prompt': 0, 'sample': 0, 'output': '#### 7', 'tokens': 3, 'finished': True}\n"
        "pipe.write(json.dumps({'loaded': True}) + '\\n' + json.dumps(line) + '\\n' + json.dumps(line)[:20])\n"
        "pipe.flush()\n"
        "print('the engine broke')\n"
        "os.abort()\n"
    )
    fake_python = tmp_path / "python"
    fake_python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {worker} "$@"\n')
    fake_python.chmod(0o755)
    monkeypatch.setattr(generate.sys, "executable", str(fake_python))
    arguments = ["--model", str(model), "--data", str(data), "--max-tokens", "40", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 1
    assert "vLLM ended with exit code -6 after 1 of 10 responses" in done.stderr
    assert "the engine broke" in done.stderr
    assert "continues from there" in done.stderr
    assert len((tmp_path / "out" / "tiny" / "responses.jsonl").read_text().splitlines()) == 1


def test_the_template_rule(model):
    tokenizer = load_tokenizer(model)

    def text(template, *messages):
        problem = Problem("set", 0, "math500", [{"role": r, "content": c} for r, c in messages], "1", template)
        (prompt,) = render([problem], tokenizer, "tiny")
        assert tokenizer.decode(prompt.ids) == prompt.text
        return prompt.text

    assert text(None, ("user", "1+1=")) == text("qwen-boxed", ("user", "1+1=")) == "<|im_start|>1+1="
    assert text("none", ("user", "1+1=")) == "1+1="


def test_any_index_that_tells_rows_apart_will_do(call, tmp_path):
    """A UUID as in DAPO-Math-17k, a number, one that pandas made a float, and none at all."""
    there = ["9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079", 7, "8", 9.0, None, float("nan")]
    found = [problems._index(index, number) for number, index in enumerate(there)]
    assert found == [there[0], 7, 8, 9, 4, 5]

    ours = [arithmetic.verl_row((1, 2, 3, 1 + n), n, "test") | {"extra_info": {"index": f"uuid-{n}"}} for n in range(3)]
    write_rows(tmp_path / "uuid" / "dapo.parquet", ours)
    done = call("--json", data=tmp_path / "uuid")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sets"]["dapo"]["problems"] == 3
    assert call("--json", data=tmp_path / "uuid", fake=no_vllm).exit_code == 0, "what is there is found again"

    for wrong, said in (({"index": {"a": 1}}, "neither a number nor a text"), ({"index": "uuid-0"}, "occurs twice")):
        rows = [ours[0], ours[1] | {"extra_info": wrong}]
        if wrong["index"] != "uuid-0":
            rows = rows[1:]
        write_rows(tmp_path / "wrong" / "dapo.parquet", rows)
        done = call(data=tmp_path / "wrong", fake=no_vllm)
        assert done.exit_code == 2
        assert f"dapo.parquet, row {len(rows)}: extra_info.index" in done.stderr
        assert said in done.stderr


def test_answers_are_looked_for_where_they_are_asked_for(call, tmp_path):
    """The generator's responses end in `#### n`, three of four."""
    ours = [arithmetic.verl_row((1, 2, 3, 1 + n), n, "test") | {"data_source": "gsm8k"} for n in range(8)]
    write_rows(tmp_path / "data" / "gsm8k.parquet", ours)
    shares = {}
    for answer in ("boxed", "hash"):
        done = call("--json", data=tmp_path / "data", answer=answer, out=answer)
        assert done.exit_code == 0, done.stderr
        shares[answer] = json.loads(done.stdout)["models"][0]["average"]["no_answer"]
    assert shares["boxed"] == 1.0
    assert shares["hash"] < 0.8
    done = call(data=tmp_path / "data", answer="boxed", out="hash", fake=no_vllm)
    assert done.exit_code == 2
    assert "has responses made with different settings: answer hash there, None now" in done.stderr
