"""Data, reward function and sizes of a run, checked before Ray starts."""

import json
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from omegaconf import OmegaConf

from sspo_verl.plugin import check_data, try_reward
from sspo_verl.plugin.check_sizes import sizes_fit
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

GOOD = """
    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        return float(solution_str == ground_truth)
"""


def row(prompt: str = "1+1=", **more) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {"prompt": messages, "data_source": "sums", "reward_model": {"ground_truth": "2"}, **more}


FOUR = [row()] * 4
SCHEMA = pyarrow.Table.from_pylist(FOUR).schema


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer.build().save_pretrained(folder)
    return folder


@pytest.fixture
def check(tmp_path, model):
    """A function that checks a run with these rows, this reward function and these settings of data.*; returns the
    lines, or the error's text."""
    its_model = model

    def run(
        rows=FOUR,
        reward: str = GOOD,
        suffix: str = ".parquet",
        reward_model=False,
        model=None,
        loop=None,
        function: str | None = "compute_score",
        **settings,
    ):
        file, code = tmp_path / f"train{suffix}", tmp_path / "reward.py"
        write(file, list(rows))
        code.write_text(textwrap.dedent(reward))
        data = {"train_files": str(file), "val_files": None, "prompt_key": "prompt", "train_batch_size": 2}
        config = OmegaConf.create(
            {
                "trainer": settings.pop("trainer", {}),
                "data": {**data, "max_prompt_length": 16, **settings},
                "actor_rollout_ref": {
                    "model": {"path": str(its_model), **(model or {})},
                    "rollout": {"agent": {"default_agent_loop": loop or "single_turn_agent"}},
                },
                "reward": {
                    "reward_manager": {"source": "register", "name": "naive"},
                    "custom_reward_function": {"path": str(code), "name": function},
                    "reward_model": {"enable": reward_model},
                },
            }
        )
        try:
            return check_data.check(config)
        except ValueError as error:  # and no other
            return str(error)

    return run


def write(file: Path, rows: list[dict]) -> None:
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=None if rows else SCHEMA), file)
    else:
        file.write_text("".join(json.dumps(each) + "\n" for each in rows))


def without(*columns: str) -> list[dict]:
    return [{key: value for key, value in row().items() if key not in columns}] * 4


def test_good_data_pass_in_silence(check):
    assert check() == []
    assert check(suffix=".jsonl") == []


def test_files_that_cannot_be_trained_on_are_named(check, tmp_path):
    file = tmp_path / "train.parquet"
    assert check([]) == f"data.train_files: {file} has no rows."
    assert check([], suffix=".jsonl") == f"data.train_files: {tmp_path}/train.jsonl has no rows."
    assert f"data.train_files: {tmp_path}/none.parquet is not there" in check(train_files=f"{tmp_path}/none.parquet")
    assert f"data.val_files: {tmp_path}/none.parquet is not there" in check(val_files=[f"{tmp_path}/none.parquet"])
    (tmp_path / "text.parquet").write_text("no parquet")
    assert f"{tmp_path}/text.parquet cannot be read: Parquet magic bytes" in check(
        train_files=f"{tmp_path}/text.parquet"
    )
    (tmp_path / "half.jsonl").write_text('{"prompt": ')
    assert "half.jsonl cannot be read" in check(train_files=f"{tmp_path}/half.jsonl")
    assert "does not end in .parquet, .json" in check(train_files=str(tmp_path / "reward.py"))
    assert check(train_files=str(tmp_path)) == (
        f"data.train_files: {tmp_path} is a folder. Name the parquet or JSONL files in it: data.train_files=[A,B]."
    )
    assert check(train_files="s3://bucket/train.parquet") == []  # not on this machine
    assert check([], custom_cls={"path": "mine.py"}) == []


def test_columns_and_rows_that_are_missing_are_named(check):
    for column in ("prompt", "data_source", "reward_model"):
        assert f"has no column '{column}'" in check(without(column))
    assert check(without("reward_model"), reward_model=True) == [], "a model scores what it reads: no ground truth"
    assert "not a dict with 'ground_truth'" in check([row(reward_model={"style": "rule"})] * 4)
    said = check(train_batch_size=5)
    assert "data.train_batch_size=5, but data.train_files" in said
    assert "have 4 row(s)" in said
    assert "have 1 row(s)" in check(train_max_samples=1)


PROMPTS = [
    ("1+1=", "is a str ('1+1='). It must be a list of messages, [{'role': 'user', 'content': ...}]"),
    (None, "is missing or null"),
    ([], "is an empty list"),
    ([1], "has a int (1) as message 1"),
    ([{"role": None, "content": "1+1="}], "has no text as the 'role' of message 1"),
    ([{"role": "user", "content": "1"}, {"role": "user", "content": None}], "has no 'content' in message 2"),
]


def test_a_prompt_that_is_no_conversation_is_refused(check):
    template = "{{ raise_exception('no') }}"
    custom = {"custom_chat_template": template}
    said = check(model=custom)
    assert "train.parquet, row 1: 'prompt' fails in the model's chat template" in said
    for suffix, where in ((".parquet", "row"), (".jsonl", "line")):
        for prompt, wrong in PROMPTS:
            for others in ([], [row()] * 3):
                if suffix == ".parquet" and (isinstance(prompt, str) or prompt == [1]):
                    others = []  # a column of parquet has one type
                named = f"{where} {len(others) + 1}: 'prompt' (data.prompt_key) {wrong}"
                for model in ({}, {"path": "on/the/hub"}):  # with a tokenizer, and without
                    assert named in check([*others, row() | {"prompt": prompt}], suffix=suffix, model=model)
    assert check([row() | {"prompt": "1+1="}] * 4, loop="mine", model={"path": "on/the/hub"}) == []


def test_prompts_that_are_too_long_are_counted_and_named(check):
    (said,) = check([row(), row("1+" * 30 + "1="), row(), row("2+" * 20 + "2=")])
    assert "WARNING: 2 of the first 4 prompts have more than data.max_prompt_length=16 tokens, up to 63" in said
    assert "row 2 of train.parquet, row 4 of train.parquet" in said
    assert "data.max_prompt_length=63, or data.filter_overlong_prompts=True" in said


LONG, FILTER = row("1" * 59), {"filter_overlong_prompts": True}
LEAVES = "data.filter_overlong_prompts=True leaves"


def test_the_filter_of_long_prompts_must_leave_a_batch(check):
    assert check([LONG] * 9 + [row()] * 2, **FILTER) == []
    assert check([LONG] * 4, **FILTER) == (
        f"{LEAVES} 0 of the 4 prompts, those of at most data.max_prompt_length=16 tokens: less than "
        "data.train_batch_size=2. Set data.max_prompt_length=60."
    )
    for suffix in (".parquet", ".jsonl"):
        said = check([row(), *[LONG] * 3], suffix=suffix, **FILTER)
        assert f"{LEAVES} 1 of the 4 prompts" in said
        assert said.endswith("Set data.max_prompt_length=60, or data.train_batch_size to 1 or less.")


def test_the_filter_looks_at_the_rows_that_are_taken(check):
    """The first train_max_samples, or any of all rows if they are shuffled."""
    rows = [LONG] * 3 + [row()] * 3
    assert f"{LEAVES} 1 of the 4 prompts" in check(rows, train_max_samples=4, **FILTER)
    assert check(rows, train_max_samples=5, **FILTER) == []
    assert check(rows, train_max_samples=4, shuffle=True, **FILTER) == []
    assert f"{LEAVES} 1 of the 4 prompts" in check([LONG, LONG, LONG, row()], shuffle=True, **FILTER)


def test_the_filter_leaves_out_a_prompt_that_fails_in_the_template(check):
    template = "{% if messages[0].content == 'no' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    custom = {"custom_chat_template": template}
    said = check([row(), row("no"), row("no")], model=custom, **FILTER)
    assert f"{LEAVES} 1 of the 3 prompts" in said
    assert "Set data.max_prompt_length higher, or data.train_batch_size to 1 or less." in said
    assert check([row(), row("no"), row()], model=custom, **FILTER) == []
    assert "row 2: 'prompt' fails in the model's chat template" in check([row(), row("no")], model=custom)
    assert "row 1: 'prompt' fails in the model's chat template" in check([row("no"), row()], model=custom, **FILTER)


def test_the_filter_is_followed_for_as_long_as_the_time_limit(check, monkeypatch):
    """Here it ends after one row."""
    monkeypatch.setattr(check_data, "SECONDS", 0)
    (said,) = check([LONG] * 4, **FILTER)
    assert said == (
        f"WARNING: {LEAVES} 0 of the first 1 prompts, those of at most data.max_prompt_length=16 tokens. At this rate "
        "less than data.train_batch_size=2 of 4 stay, and verl fails: set data.max_prompt_length higher."
    )
    assert check([row(), *[LONG] * 3], **FILTER) == []


def test_the_time_limit_of_long_prompts_is_for_all_files(check, tmp_path, monkeypatch):
    monkeypatch.setattr(check_data, "SECONDS", 0)
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    for file in (first, second):
        write(file, [LONG] * 4)
    (said,) = check(train_files=[str(first), str(second)])
    assert "1 of the first 1 prompts" in said


def test_a_prompt_with_half_a_character_is_named(check, tmp_path):
    """In a row per line, which `datasets` then fails on; in a list the tokenizer finds it."""
    said = check([row(), row("\ud83d\ude00"), row("1\ud800")], suffix=".jsonl")
    assert said == (
        f"data.train_files: {tmp_path}/train.jsonl cannot be read: line 3: 'prompt' has half a character "
        "('\\ud800', a lone surrogate). Correct the text, or leave the row out."
    )
    (tmp_path / "list.json").write_text(json.dumps([row(), row("1\ud800")]))
    said = check(train_files=f"{tmp_path}/list.json")
    assert f"{tmp_path}/list.json, row 2: 'prompt' fails in the model's tokenizer (UnicodeEncodeError: " in said
    assert "surrogates not allowed). Correct its text, or leave the row out." in said


def test_every_row_is_looked_at(check):
    """The faulty row is the last, or, in a second file, the first."""
    null, empty = {"style": "rule", "ground_truth": None}, {"style": "rule"}
    for suffix, where in ((".parquet", "row 4"), (".jsonl", "line 4")):
        for wrong, said in (
            (row(reward_model=null), "'reward_model' has 'ground_truth': null. Give the row's answer"),
            (row(reward_model={"ground_truth": float("nan")}), "'reward_model' has 'ground_truth': NaN"),
            (row(reward_model=None), "'reward_model' is null. It must be a dict with 'ground_truth'"),
        ):
            rows = [row(reward_model={"ground_truth": 2.0})] if said.endswith("NaN") else [row()]
            assert f"{where}: {said}" in check([*rows * 3, wrong], suffix=suffix)
    for wrong, said in (
        ({key: value for key, value in row().items() if key != "reward_model"}, "'reward_model' is missing. It must"),
        (row(reward_model=empty), "'reward_model' is not a dict with 'ground_truth'"),
        (row(reward_model='{"ground_truth": 2}'), "'reward_model' is a str ('{\"ground_truth\": 2}'). It must"),
        ({key: value for key, value in row().items() if key != "data_source"}, "'data_source' is missing"),
        (row(extra_info="x"), "'extra_info' is a str ('x'). It must be a dict, or null"),
        (row(extra_info=[1]), "'extra_info' is a list ([1]). It must be a dict, or null"),
    ):
        assert f"train.jsonl, line 4: {said}" in check([row()] * 3 + [wrong], suffix=".jsonl")
    assert "train.parquet, row 1: 'extra_info' is a str ('x'). It must" in check([row(extra_info="x")] * 4)
    assert "train.parquet, row 3: 'extra_info' is a list" in check([row(extra_info=each) for each in (None, None, [1])])
    assert check([row(extra_info=None)] * 4) == []
    assert "row 1: 'reward_model' is a str" in check([row(reward_model="{}")] * 4)


def test_a_row_of_the_second_batch_is_named(check, monkeypatch):
    from sspo_verl.plugin import data_file

    monkeypatch.setattr(data_file, "BATCH", 4)
    assert "row 11: 'reward_model' is null" in check([row()] * 10 + [row(reward_model=None), row()])
    assert "row 7: 'prompt' (data.prompt_key) has no 'content' in message 2" in check(
        [row()] * 6 + [{**row(), "prompt": [{"role": "user", "content": "1"}, {"role": "user", "content": None}]}]
    )


def test_all_files_are_looked_at_and_have_to_fit_together(check, tmp_path):
    good, other = tmp_path / "good.parquet", tmp_path / "other.parquet"
    write(good, FOUR)
    both = {"train_files": [str(good), str(other)]}
    write(other, without("reward_model"))
    assert f"data.train_files: {other} has no column 'reward_model'" in check(**both)
    write(other, [row(reward_model={"ground_truth": 2})] * 4)
    said = check(**both)
    assert f"data.train_files: {other} does not fit {good}" in said
    assert "key ground_truth" in said
    assert f"data.val_files: {other} does not fit {good}" in check(val_files=[str(good), str(other)])
    write(other, [row(extra_info={"index": 1}, more=1, reward_model={"style": "rule", "ground_truth": "2"})] * 4)
    assert check(**both) == [], "other columns are filled up"
    lines = tmp_path / "lines.jsonl"
    write(lines, [row(data_source=5)] * 4)
    assert f"{lines} does not fit {good}" in check(train_files=[str(good), str(lines)])
    write(lines, FOUR)
    assert check(train_files=[str(good), str(lines)]) == []


def test_validation_data_need_an_answer_only_where_they_are_scored(check, tmp_path):
    file = tmp_path / "val.parquet"
    write(file, without("reward_model"))
    assert check(val_files=str(file)) == []
    said = check(val_files=str(file), trainer={"val_before_train": True})
    assert f"data.val_files: {file} has no column 'reward_model'" in said
    write(file, [row(prompt="x") | {"prompt": []}] * 4)
    assert f"data.val_files: {file}, row 1: 'prompt' (data.prompt_key) is an empty list" in check(val_files=str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ROW\nROW\n{'x':\n", "line 3 is not JSON (Expecting property name enclosed in double quotes, column 2)."),
        ("ROW\n\nROW\n[1]\n", "line 4 is a list ([1]) and not an object"),
        ("ROW\n5\n", "line 2 is a int (5) and not an object"),
        ("[ROW,\n ROW,\n 5]", "row 3 is a int (5) and not an object"),
        ("[ROW,\n ROW,\n", "line 3 is not JSON"),
        ("ROW\nÄ\n", "line 2 is not UTF-8"),
        ("[ROW,\n'Ä']", "line 2 is not UTF-8"),
        ("[" * 10**5, "line 1 has lists or objects nested too deeply to be read. Correct it, or leave it out."),
        ("\n" + '{"a":' * 10**5, "line 2 has lists or objects nested too deeply"),
        ("ROW\n" + "[" * 10**5, "line 2 has lists or objects nested too deeply"),
        ('{"a": 1, "a": 1}', "line 1 has the key 'a' twice. Keep one of them."),
        ('ROW\n{"a": {"b": 1, "b": 1}}', "line 2 has the key 'b' twice"),
        ('ROW\n{"a": 1,\n"a": 2}', "line 2 is not JSON"),
        ('{\n"a": 1,\n"a": 2}', "line 1 has the key 'a' twice"),
        (f'\n[{{"a": {10**25}}}]', "line 2 has a number that does not fit in 64 bits (10000000000000000000...)"),
        (f'[{{"a": -{"9" * 5000}}}]', "line 1 has a number that does not fit in 64 bits (-9999999999999999999...)"),
    ],
    ids=range(16),
)
def test_a_bad_line_of_json_is_named(check, tmp_path, text, said):
    file = tmp_path / "bad.json"
    file.write_bytes(text.replace("ROW", json.dumps(row())).encode("latin1"))
    assert f"data.train_files: {file} cannot be read: {said}" in check(train_files=str(file))


def test_json_is_read_as_verl_reads_it(check, tmp_path):
    """With a byte order mark, white space before the list, or objects over several lines."""
    rows = json.dumps(FOUR)
    for number, text in enumerate(
        (
            "\ufeff" + "".join(json.dumps(each) + "\n" for each in FOUR),
            "\ufeff" + rows,
            " \n\t" + rows,
            "\n" + json.dumps(FOUR, indent=1),
            "\n".join(json.dumps(each, indent=1) for each in FOUR),
            "\n \n".join(json.dumps(each) for each in FOUR),
        )
    ):
        file = tmp_path / f"{number}.json"
        file.write_text(text, encoding="utf-8")
        assert check(train_files=str(file), train_batch_size=4) == []
        assert "have 4 row(s)" in check(train_files=str(file), train_batch_size=5)


def test_a_number_of_any_length_is_read_as_datasets_reads_it(check, tmp_path):
    """As infinity in a row per line."""
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps(row(n=1)).replace('"n": 1', f'"n": {"9" * 5000}') + "\n" for _ in range(4)))
    assert check(train_files=str(file)) == []
    file.write_text(json.dumps([row(n=2**64 - 1, text="{}")] * 4).replace('"{}"', '{"a": 1, "a": 1}'))
    assert check(train_files=str(file)) == [], "a key may come twice in a list"


def test_two_columns_of_one_name_are_refused(check, tmp_path):
    table = pyarrow.Table.from_pylist(FOUR)
    twice = pyarrow.Table.from_arrays([*table.columns, table["prompt"]], names=[*table.column_names, "prompt"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    said = check(train_files=f"{tmp_path}/twice.parquet")
    assert said == f"data.train_files: {tmp_path}/twice.parquet has 2 columns 'prompt'. Keep one of them."


def test_settings_of_the_wrong_kind_are_named(check):
    for name in (None, []):
        assert "data.train_files names no file. Name parquet or JSONL files: data.train_files=PATH." in check(
            train_files=name
        )
    for name in (5, [None], [""], {"a": "b"}):
        assert "is not a path. Name parquet or JSONL files" in check(train_files=name)
    assert "data.val_files: 1 is not a path." in check(val_files=[1])
    for value, shown in ((None, "null"), (2.5, "2.5"), ("x", "x"), (True, "True"), (0, "0"), (-2, "-2")):
        assert f"data.train_batch_size={shown}: set " in check(train_batch_size=value)
    said = check(train_max_samples=None)
    assert said == "data.train_max_samples=null: set a whole number, -1 for all rows, or how many."
    assert "data.max_prompt_length=null: set a whole number" in check(max_prompt_length=None)
    for value, shown in ((5, "5"), (None, "null"), ([1], "[1]")):
        said = check(apply_chat_template_kwargs=value)
        assert f"data.apply_chat_template_kwargs={shown}: set it to arguments of the chat template, {{enable_" in said
    assert check(apply_chat_template_kwargs={"enable_thinking": False}) == []


def reward(body: str) -> str:
    return f"def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    {body}\n"


def test_a_reward_function_that_would_fail_says_so_with_its_own_error(check, tmp_path, monkeypatch):
    said = check(reward=reward("return extra_info['gold']"))
    assert f"the reward function compute_score of {tmp_path}/reward.py, called with solution_str='2'" in said
    assert f"raises KeyError: 'gold' (line 2 of {tmp_path}/reward.py). Fix it, or set SSPO_CHECK_REWARD=0" in said
    for value in ("'good'", "float('nan')", "None", "{'acc': 1.0}", "{'score': '1'}"):
        assert "verl needs a finite number, or a dict with one as 'score'" in check(reward=reward(f"return {value}"))
    assert "cannot be loaded: AttributeError" in check(reward="x = 1")
    monkeypatch.setenv("SSPO_CHECK_REWARD", "0")
    assert check(reward=reward("raise OSError")) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("numpy.array([1.0])", "can't assign a numpy.ndarray"),
        ("numpy.float32(1)", "can't assign a numpy.float32"),
        ("fractions.Fraction(1, 2)", "can't assign a Fraction"),
        ("decimal.Decimal('0.5')", "can't assign a decimal.Decimal"),
        ("b'1'", "can't assign a bytes"),
        ("[1.0]", "can't assign a list"),
        ("torch.ones(2)", "expand"),
        ("10**400", "verflow"),
        ("1e39", "overflow"),
        ("{'score': 10**5000}", "verflow"),
        ("collections.UserDict(score=1.0)", "can't assign a UserDict"),
        ("float('inf')", "not finite"),
    ],
)
def test_a_score_that_verl_cannot_store_is_refused(check, value, why):
    modules = "import collections, decimal, fractions, numpy, torch\n"
    said = check(reward=modules + reward(f"return {value}"))
    assert "which verl cannot store as a score (" in said
    assert why in said
    assert "verl needs a finite number, or a dict with one as 'score'. Fix it, or set SSPO_CHECK_REWARD=0" in said


@pytest.mark.parametrize(
    "value", ["True", "1", "numpy.float64(1)", "numpy.int64(1)", "torch.tensor(1.0)", "{'score': torch.ones(1)}"]
)
def test_a_score_that_verl_can_store_passes(check, value):
    assert check(reward="import numpy, torch\n" + reward(f"return {value}")) == []


def test_a_reward_function_that_ends_the_process_is_refused(check, tmp_path):
    said = check(reward="import sys\n" + reward("sys.exit(3)"))
    assert f"raises SystemExit: 3 (line 3 of {tmp_path}/reward.py). Fix it" in said
    said = check(reward="import sys\nsys.exit(3)")
    assert f"of {tmp_path}/reward.py cannot be loaded: SystemExit: 3 (line 2 of {tmp_path}/reward.py)" in said


def test_an_error_that_has_no_text_is_refused_by_its_type(check):
    code = "class Mute(Exception):\n    def __str__(self): raise KeyError\n    __repr__ = __str__\n"
    assert "raises Mute: a Mute whose str raises KeyError (line" in check(reward=code + reward("raise Mute"))
    assert "returns a Mute whose repr raises KeyError, which verl" in check(reward=code + reward("return Mute()"))


def test_a_reward_file_that_cannot_be_loaded_says_what_is_wrong_in_it(check, tmp_path, monkeypatch):
    file = f"{tmp_path}/reward.py"
    named = f"reward.custom_reward_function: the reward function compute_score of {file} cannot be loaded: "
    assert check(reward="\ndef (:\n") == f"{named}SyntaxError: invalid syntax (reward.py, line 2)"
    said = check(reward="import nope_pkg")
    assert said == f"{named}ModuleNotFoundError: No module named 'nope_pkg' (line 1 of {file})"
    monkeypatch.setattr("verl.trainer.ppo.reward.get_custom_reward_fn", lambda config: 1 / 0)
    assert f"{named}ZeroDivisionError: division by zero" in check()


def test_a_reward_function_without_a_name_is_refused(check, tmp_path):
    assert check(function=None) == (
        f"reward.custom_reward_function.name is null: set it to the name of the function in {tmp_path}/reward.py."
    )


def test_a_reward_of_nothing_for_the_ground_truth_is_said(check):
    (said,) = check(reward=reward("return 0"))
    assert "gives 0 to row 1's own ground truth X='2'" in said
    for form in ("2", r"\\boxed{2}", "#### 2", "<answer>2</answer>"):
        assert (
            check(reward=reward(f"return {{'score': float({form!r} in solution_str)}}".replace("\\\\\\\\", "\\\\")))
            == []
        )
    assert check(reward="async " + reward("return 1.0")) == []


def test_the_reward_is_called_once_for_each_data_source(check):
    rows = [row(data_source=each) for each in ("a", "a", "b", None, "a", "c", "d", "e", "f")]
    fails = reward("if data_source == 'b': raise NotImplementedError(data_source)\n    return 1.0")
    for suffix, where in ((".parquet", "row 3"), (".jsonl", "line 3")):
        said = check(rows, suffix=suffix, reward=fails)
        assert f"and the data of {where} (data_source 'b'), raises NotImplementedError: b" in said
        said = check(rows, suffix=suffix, reward=reward("return 0.0"))
        assert [each.split("data_source ")[1].split(")")[0] for each in said] == ["'a'", "'b'", "None", "'c'", "'d'"]


def test_a_reward_that_does_not_return_is_not_waited_for(check, monkeypatch):
    monkeypatch.setattr(try_reward, "SECONDS", 0.2)
    began = time.monotonic()
    (said,) = check(reward="import time\n" + reward("time.sleep(3)"))
    assert time.monotonic() - began < 3
    assert "did not return within 0.2 s" in said


def sizes(batch=16, n=8, mini=4, micro=32, log_prob=128, ranks=1, **more) -> str | None:
    actor = {"strategy": "fsdp2", "ppo_mini_batch_size": mini, "ppo_micro_batch_size_per_gpu": micro}
    rollout = {"log_prob_micro_batch_size_per_gpu": log_prob}
    config = OmegaConf.create(
        {
            "data": {"train_batch_size": batch},
            "trainer": {"n_gpus_per_node": ranks, "nnodes": 1, "v1": {"trainer_mode": "sync"}},
            "actor_rollout_ref": {"rollout": rollout, "ref": {}},
            "algorithm": {},
        }
    )
    actor = OmegaConf.create({"use_dynamic_bsz": False, **actor, **more})
    run = SimpleNamespace(config=config, actor=actor, n=n, trainer="main_ppo", own_groups=[], bypass=False)
    return sizes_fit(run)  # pyright: ignore[reportArgumentType]


def test_sizes_that_do_not_divide_are_named():
    """7 x 8 responses are padded to 64, of which 128 make no micro-batch."""
    assert sizes() is None
    said = sizes(batch=7)
    assert "rollout.log_prob_micro_batch_size_per_gpu=128 does not divide the 64 responses of a rank" in said
    assert "data.train_batch_size=7 x actor_rollout_ref.rollout.n=8, padded to 64" in said
    assert said.endswith("Set it to 64, or actor_rollout_ref.actor.use_dynamic_bsz=True.")
    assert "ppo_micro_batch_size_per_gpu=20 does not divide the 32" in sizes(micro=20)
    assert "are 28 responses, which 3 ranks cannot share" in sizes(mini=4, n=7, ranks=3)
    assert sizes(ranks=2, micro=16, log_prob=64) is None
    assert sizes(ranks=2, micro=16, log_prob=64, ulysses_sequence_parallel_size=2) is None
    assert sizes(batch=7, use_dynamic_bsz=True) is None
    assert sizes(batch=7, strategy="megatron") is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nowhere/model", "model.path=/nowhere/model: there is no such folder here"),
        (__file__, "test_check_data.py: is not a folder"),
        (None, "model.path must be a model's folder, or its name on the hub, got None"),
        (5, "got 5"),
    ],
)
def test_a_model_that_is_not_there(check, path, said):
    assert said in check(model={"path": path})


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-Math-1.5B", "hdfs://cluster/model"])
def test_a_model_that_is_elsewhere_passes(check, path):
    assert check(model={"path": path}) == []
