"""`sspo data`: rows of every published layout, answers, the rule for same problems, and the command, on small files."""

import gzip
import json
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sspo_verl.tools.data import hub, instruction
from sspo_verl.tools.data.answer import after_mark, last_boxed, plain
from sspo_verl.tools.data.command import command
from sspo_verl.tools.data.read import RawRow, read
from sspo_verl.tools.data.record import COLUMNS, record
from sspo_verl.tools.data.same import duplicates, normalise, overlap
from sspo_verl.tools.data.sets import EVALUATION, MATH
from sspo_verl.tools.data.template import INSTRUCTION, TEMPLATES, messages, problem_in
from sspo_verl.tools.tasks import arithmetic


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_arrow(path, rows, stream=True):
    table = pa.Table.from_pylist(rows)
    writer = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, writer(sink, table.schema) as out:
        out.write_table(table)
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def math_row(problem, solution, level="Level 3"):
    return {"problem": problem, "solution": solution, "level": level, "type": "Algebra"}


MATH_ROWS = [
    math_row("What is $1+1$?", r"It is $\boxed{2}$."),
    math_row("What is $2+2$?", r"It is $\boxed{4}$.", "Level 1"),
    math_row("No answer?", r"$\boxed{}$", "Level 5"),
    math_row("What is  $1 + 1?$", r"$\boxed{ 2}$", "Level 4"),
    math_row("A level that nobody knows.", r"\boxed{1}", "Level ?"),
    math_row("Shared with AIME.", r"\boxed{025}", "Level 5"),
    math_row("what is $1+1$", r"\boxed{3}", "Level 5"),
]


def run(*arguments, code=0):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def run_json(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def raw(value, row=1):
    return RawRow(f"file:{row}", "file", row, value)


# Answers


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{42}$.", "42"),
        (r"$\boxed{1}$, no, $\boxed{\frac{1}{2}}$ it is", r"\frac{1}{2}"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"$\boxed{[0, 1\}}$", r"[0, 1\}"),
        (r"$\boxed 7$ apples", "7"),
        (r"$\boxed {7}$", "7"),
        (r"$\fbox{7}$", "7"),
        ("$\\boxed{\n\\text{four}\n}$", r"\text{four}"),
        (r"$\boxed{}$", ""),
        (r"$\boxed{ }$", ""),
        (r"$\boxed{never closed", None),
        (r"$\boxed", None),
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed(solution, answer):
    assert last_boxed(solution) == answer


def test_plain_answers():
    assert plain(142.0) == "142"
    assert plain(-4.0) == "-4"
    assert plain(0.5) == "0.5"
    assert plain(3159) == "3159"
    assert plain(" 9.6\n") == "9.6"
    assert plain("025") == "025"
    assert plain(None) is None
    assert plain(float("nan")) is None
    assert after_mark("5+5=10\n#### 1,000") == "1,000"
    assert after_mark("10") is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("math", math_row("p", r"$\boxed{\frac12}$", "Level 4"), ("p", r"\frac12", 4, "Algebra")),
        (
            "math",
            {  # verl's layout, the answer a solution
                "level": "Level 5",
                "type": "Geometry",
                "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
                "reward_model": {"ground_truth": {"question": "p", "solution": r"\boxed{\$5}", "target": "5"}},
            },
            ("p", r"\$5", 5, "Geometry"),
        ),
        (
            "math",
            {
                "prompt": [{"role": "user", "content": "p"}],
                "reward_model": {"ground_truth": "7"},
                "extra_info": {"level": 2, "type": "Algebra"},
            },
            ("p", "7", 2, "Algebra"),
        ),
        (
            "math500",
            {"problem": "p", "answer": "1", "solution": "", "level": 2, "subject": "S"},
            ("p", "1", 2, "S"),
        ),
        ("math", math_row("p", r"\boxed{1}", "Level 7"), ("p", "1", None, "Algebra")),
        ("math500", {"problem": "p", "answer": "1", "difficulty": 3.0}, ("p", "1", 3, None)),
        ("aime24", {"problem": "p", "answer": "025", "difficulty": 4.0}, ("p", "025", None, None)),
        ("amc", {"problem": "p", "answer": 142.0}, ("p", "142", None, None)),
        ("amc23", {"question": "p", "answer": "27.0"}, ("p", "27.0", None, None)),
        ("minerva", {"problem": "p", "solution": r"\boxed{4e7}", "type": "T"}, ("p", "4e7", None, "T")),
        ("minerva", {"problem": "p", "answer": ["6630.65\n", "6630\n"]}, ("p", "6630.65", None, None)),
        (
            "olympiadbench",
            {"question": "p", "final_answer": ["$1$", " $2$"], "subfield": "A", "solution": ["x"]},
            ("p", "$1$, $2$", None, "A"),
        ),
        ("gsm8k", {"question": "p", "answer": "1+1=2\n#### 2"}, ("p", "2", None, None)),
        ("gsm8k", {"question": "p", "answer": "without the mark"}, ("p", None, None, None)),
        ("gsm8k", {"question": "p", "answer": "1,200"}, ("p", "1,200", None, None)),
        ("gsm8k", {"question": "p", "answer": " -$1.50\n"}, ("p", "-$1.50", None, None)),
        ("gsm8k", {"question": "p", "answer": "1/2"}, ("p", "1/2", None, None)),
        ("gsm8k", {"question": "p", "answer": 18}, ("p", "18", None, None)),
        ("gsm8k", {"question": "p", "answer": 18.0}, ("p", "18", None, None)),
        ("math500", {"problem": "p", "answer": None}, ("p", None, None, None)),
        ("olympiadbench", {"question": "p", "final_answer": []}, ("p", None, None, None)),
        ("gsm8k", {"question": "p", "final_answer": 5, "solution": "x"}, ("p", "5", None, None)),
        ("gsm8k", {"question": "p", "final_answer": "5", "answer": "so five"}, ("p", "5", None, None)),
        ("gsm8k", {"question": "p", "answer": "so five", "solution": "#### 5"}, ("p", "5", None, None)),
        ("gsm8k", {"question": "p", "answer": ".5"}, ("p", ".5", None, None)),
        ("gsm8k", {"question": "p", "answer": "1e3"}, ("p", "1e3", None, None)),
        ("gsm8k", {"question": "p", "answer": "$3$"}, ("p", "3", None, None)),
        ("gsm8k", {"question": "p", "answer": "$3"}, ("p", "$3", None, None)),
        ("gsm8k", {"question": "p", "answer": r"so \boxed{3}"}, ("p", "3", None, None)),
        ("gsm8k", {"question": "p", "answer": ["a", "#### 5"]}, ("p", "5", None, None)),
        ("amc", {"problem": b"p", "answer": b"17", "type": b"T"}, ("p", "17", None, "T")),
        ("amc", {"problem": "p", "answer": Decimal("3.50")}, ("p", "3.5", None, None)),
        ("amc", {"problem": "p", "answer": Decimal("142.00")}, ("p", "142", None, None)),
        ("amc", {"problem": "p", "answer": Decimal("1E+3")}, ("p", "1000", None, None)),
        ("amc", {"problem": "p", "answer": r"$\boxed{3}$."}, ("p", "3", None, None)),
        ("amc", {"problem": "p", "answer": r"The answer is $\boxed{3}$, as 2+1."}, ("p", "3", None, None)),
        ("amc", {"problem": "p", "answer": r"\boxed{1}, \fbox{2}"}, ("p", "1, 2", None, None)),
        ("amc", {"problem": "p", "answer": "$3$"}, ("p", "$3$", None, None)),
    ],
)
def test_a_row_of_each_layout(name, value, expected):
    found = record(raw(value), MATH if name == "math" else EVALUATION[name])
    assert (found.problem, found.answer, found.level, found.type) == expected


NAN = float("nan")
MISSING = [None, NAN, Decimal("NaN"), "", " \n", "nan", "None", "<NA>", b" ", [], [None, ""], {}]


@pytest.mark.parametrize("nothing", MISSING)
def test_what_is_missing_hides_nothing_beside_it(nothing):
    """In each place where a row may have its problem, answer, level or type in one of several columns."""
    whole = {"problem": "p", "answer": "7", "level": 3, "type": "T"}
    for value in (
        {**whole, "problem": nothing, "question": "p"},
        {**whole, "problem": nothing, "question": nothing, "prompt": [{"role": "user", "content": "p"}]},
        {**whole, "answer": nothing, "final_answer": 7},
        {**whole, "answer": nothing, "final_answer": nothing, "solution": r"\boxed{7}"},
        {**whole, "answer": nothing, "solution": nothing, "target": "7"},
        {**whole, "answer": nothing, "reward_model": {"ground_truth": "7"}},
        {**whole, "reward_model": nothing},
        {**whole, "reward_model": {"ground_truth": nothing}},
        {**whole, "level": nothing, "extra_info": {"level": 3}},
        {**whole, "level": nothing, "extra_info": nothing, "difficulty": 3},
        {**whole, "type": nothing, "subject": "T"},
        {**whole, "type": nothing, "extra_info": {"type": "T"}},
    ):
        found = record(raw(value), EVALUATION["math500"])
        assert (found.problem, found.answer, found.level, found.type) == ("p", "7", 3, "T"), value
    for name in ("math500", "gsm8k", "minerva"):
        assert record(raw({"problem": "p", "answer": nothing}), EVALUATION[name]).answer is None
    assert record(raw({"question": "p", "answer": nothing, "final_answer": "7"}), EVALUATION["gsm8k"]).answer == "7"
    with pytest.raises(ValueError, match=r"problem is empty \(its columns are 'problem', 'answer'\)"):
        record(raw({"problem": nothing, "answer": "1"}), MATH)


def test_a_level_however_it_is_written():
    for level in (
        5,
        5.0,
        "5",
        "5.0",
        "Level 5",
        "Level5",
        "level 5",
        "LEVEL 5.0",
        " Level_5 ",
        "level: 5",
        "L5",
        "lvl 5",
        "Lv. 5",
        "Level 05",
        "05",
        "(5)",
        "Level (5)",
        "５",  # noqa: RUF001
        "Level：５",  # noqa: RUF001
        b"Level 5",
        Decimal("5.0"),
    ):
        assert record(raw(math_row("p", r"\boxed{1}", level)), MATH).level == 5, level
    for level in (
        None,
        float("nan"),
        "nan",
        "Level ?",
        "",
        0,
        6,
        5.5,
        55,
        True,
        "-5",
        "5th",
        "Level 5 or 4",
        "50",
        "00",
    ):
        assert record(raw(math_row("p", r"\boxed{1}", level)), MATH).level is None, level


# What verl's scripts for GSM8K (two of them), MATH and AIME, and DAPO's and PRIME's data put around a question.
VERLS = [
    '{} Let\'s think step by step and output the final answer after "####".',
    "{} Let's think step by step and output the final answer after `####`.",
    r"{} Let's think step by step and output the final answer within \boxed{{}}.",
    "Let's think step by step and output the final answer within \\boxed{{}}.\n\n{}",
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its "
    'own line after "Answer:".',
    "{}\n" + INSTRUCTION.replace("{}", "{{}}"),
    "{} Let’s think step by step and output the final answer after “####”.",  # noqa: RUF001
    "{} Let us think step by step and put your final answer inside $\\boxed{{}}$.",
    "{}\nPresent the answer in LaTex format: \\boxed{{Your answer}}",
    "{}\n\nLet's think step by step and output the final answer in boxed{{}}.",
    "{}\nlet's think step by step",
]
PLAIN = [
    r"What is \boxed{{7}} here?",
    "Put $x$ in place of #. Which answer is right?",
    "Think.",
    "Let us think. What is 1?",
    "Let's think step by step about what Bob does. What is 1?",
    "Alice wrote: let's think step by step",
    "Bob says Let's think step by step.",
    "He told her, let's think step by step.",
    r"Explain how to put the final answer in \boxed{{}}",
    'What is $y$? Remember to put your answer on its own line after "Answer:". Also note that $x>0$ in the problem.',
]


def test_known_instructions_are_taken_off_a_problem_and_nothing_else():
    question = r"What is $\frac{1}{2}$ of 4?"
    for around in VERLS:
        problem, taken_off = instruction.split(around.format(question))
        assert problem == question
        assert sorted(taken_off.split()) == sorted(around.format("").split())
    for problem in PLAIN:
        assert instruction.split(problem) == (problem, "")


def test_an_instruction_needs_no_full_stop_before_it():
    text = VERLS[0].format("How many has he")
    assert instruction.split(text) == ("How many has he", VERLS[0].format("").strip())


BOXED = r"请逐步推理，并将最终答案放在\boxed{{}}中。"  # noqa: RUF001
SHARED = [  # around a question, with its number; and what of it is named
    ("{}\nPresent it as LaTeX: \\boxed{{Your answer}}", r"Present it as LaTeX: \boxed{Your answer}"),
    ("{}" + BOXED, BOXED.format()),
    (BOXED + "{}", BOXED.format()),
    ("{}\nAnswer question {n} step by step, please.", "step by step, please."),
    ("{}\nWrite the answer to number {n}", "Write the answer to number "),
    ("In task {n}, show all steps and box the final answer. {}", "show all steps and box the final answer."),
    ("{} answer in boxed form please", "answer in boxed form please"),
    ("{}\nGib die Antwort als Zahl an.", "Gib die Antwort als Zahl an."),
    ("{} Answer with a number only.", "Answer with a number only."),
    (
        "User: {} Think it over. Respond with one number.\nAssistant:",
        "Think it over. Respond with one number.\nAssistant:",
    ),
]


@pytest.mark.parametrize(("around", "named"), SHARED)
def test_an_instruction_that_most_rows_share_is_found_in_any_writing(around, named):
    problems = [around.format(f"How much is {n} + {n}?", n=n) for n in range(20)]
    found = instruction.shared([instruction.split(problem)[0] for problem in problems])
    assert named in (found or "")
    others = [f"How much is {n} - {n}?" for n in range(21)]
    assert instruction.shared(problems + others) is None, "it is in fewer than half of the rows"
    assert instruction.shared(problems[:9]) is None


@pytest.mark.parametrize(
    "problem",
    [
        "How much is {n} + {n}?",
        "What is the answer to problem {n}?",
        "Problem {n}: what is {n} + {n}? Show the sum.",
        "Question: what is {n} + {n}?\nAnswer:",
        "There are {n} problems on a test. Tom solves one. How many are left to answer?",
        "Solve the equation ${n}x = 1$.",
        "Let $N = {n}$. Find $N$.",
        "求{n}+{n}？",  # noqa: RUF001
    ],
)
def test_problems_that_are_alike_hold_no_instruction(problem):
    assert instruction.shared([problem.format(n=n) for n in range(20)]) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"answer": "1"}, "file:7: the row has no problem"),
        ({"Problem": "p", "answer": "1"}, r"it has none of them \(its columns are 'Problem', 'answer'\)"),
        (
            {"problem": b"\xff", "answer": "1"},
            "file:7: the row has no problem. Its column 'problem' has bytes that are not UTF-8",
        ),
        ({"problem": "p", "answer": b"\xff"}, "file:7: the answer is bytes that are not UTF-8"),
        ({"problem": "p", "answer": float("inf")}, "file:7: the answer is the number inf. Correct it"),
        ({"problem": "p", "answer": [1, Decimal("-Infinity")]}, "file:7: the answer is the number -Infinity"),
        ({"problem": INSTRUCTION, "answer": "1"}, "file:7: the row has no problem, only an instruction"),
        ({"problem": " ", "answer": "1"}, "file:7: the row has no problem"),
        ({"problem": 5, "answer": "1"}, "file:7: the row has no problem"),
        ({"prompt": [{"role": "system", "content": "p"}], "answer": "1"}, "file:7: the row has no problem"),
        ({"problem": "p", "answer": {"value": 1}}, "file:7: the answer is of type dict"),
        ({"problem": "p", "answer": True}, "file:7: the answer is of type bool"),
        ({"problem": "p", "solution": 5}, "file:7: the solution is of type int"),
    ],
)
def test_a_row_that_is_none_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        record(raw(value, row=7), MATH)


# The same problem


SAME = [
    ("What is $x$?", "what is  $x?$"),
    ("Find \\(x\\).", "Find \\[x.\\]"),
    ("Find $\\dfrac{1}{2}$", "Find $\\frac12$"),
    ("$\\left( a \\right)$", "$(a)$"),
    ("$a,$ then $b$", "$a$, then\n$$ b $$"),
    ("$x^{2}\\,$", "$x^2$"),
    ("ａ＝１", "a=1"),  # noqa: RUF001
]
OTHER = [
    ("What is $1+1$?", "What is $1-1$?"),
    ("$\\tan 225$", "$\\tan 22.5$"),
    ("$88 \\div 4 \\div 2$", "$88 \\div (4 \\div 2)$"),
    ("costs \\$5", "costs $5"),
    ("costs \\$5", "costs \\5"),
    ("$\\leftarrow$", "$\\arrow$"),
    ("$x_{12}$", "$x_12$"),
    ("$a \\\\[2pt] b$", "$a \\\\(2pt] b$"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_problems(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_problems(one, other):
    assert normalise(one) != normalise(other)


def test_duplicates_and_overlap():
    problems = ["$a$", "b", "a", "c", "a."]
    records = [record(raw({"problem": p, "answer": str(i // 3)}, i), EVALUATION["amc"]) for i, p in enumerate(problems)]
    found = duplicates(records)
    assert [[one.raw.row for one in group] for group in found.groups] == [[0, 2, 4]]
    assert [one.raw.row for one in found.later] == [2, 4]
    assert found.differing == 1
    assert [(a.raw.row, b.raw.row) for a, b in overlap(records, records[2:3])] == [(0, 2), (2, 2), (4, 2)]
    assert overlap(records, []) == []


# Reading


@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file", "jsonl", "jsonl.gz"])
def test_every_kind_of_file_gives_the_same_rows(kind, tmp_path):
    rows = [{"problem": f"p{i}", "answer": [str(i)]} for i in range(2500)]
    path = tmp_path / f"set.{kind.split()[0]}"
    if kind == "parquet":
        write_parquet(path, rows)
    elif kind.startswith("arrow"):
        write_arrow(path, rows, stream=kind == "arrow stream")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if kind == "jsonl.gz" else text)
    found = list(read(path, COLUMNS))
    assert [row.value for row in found] == rows
    assert [row.row for row in found] == list(range(1, 2501))
    assert found[2].where == f"{path}:3"


@pytest.mark.parametrize("name", ["a.jsonl", "a.arrow", "a.parquet", "a.jsonl.gz"])
def test_a_broken_file_is_named(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"ARROW1 no, it is not")
    with pytest.raises(ValueError, match=f"{name}:1: "):
        list(read(path, COLUMNS))


def test_a_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv ends with none of \.parquet"):
        list(read(tmp_path / "a.csv", COLUMNS))


# The templates


def test_messages():
    assert messages("p", "none") == [{"role": "user", "content": "p"}]
    assert messages("p", "qwen-math") == [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": "p"},
    ]
    assert messages("p", "qwen-boxed") == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": f"p\n{INSTRUCTION}"},
    ]
    assert INSTRUCTION == "Please reason step by step, and put your final answer within \\boxed{}."


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_problem_comes_back_out_of_the_messages(template):
    problem = f"Is this a problem?\n{INSTRUCTION}"
    assert problem_in(messages(problem, template), {"template": template}) == problem
    assert problem_in(messages("p", "none"), None) == "p"


# sspo data math


@pytest.fixture
def math_jsonl(tmp_path):
    return write_jsonl(tmp_path / "math" / "train.jsonl", MATH_ROWS)


@pytest.fixture
def aime(tmp_path):
    rows = [{"problem": "Another.", "answer": "1"}, {"problem": "shared with  AIME", "answer": "025"}]
    return write_arrow(tmp_path / "aime.arrow", rows)


def test_math(math_jsonl, aime, tmp_path):
    report = run_json("math", "--source", math_jsonl, "--against", aime, "--out", tmp_path / "out")
    assert report["template"] == "qwen-boxed"
    assert report["against"] == [str(aime)]
    assert report["sets"] == {
        "math": {
            "from": [str(math_jsonl)],
            "read": 7,
            "levels": [3, 4, 5],
            "at_levels": 5,
            "by_level": {"3": 1, "4": 1, "5": 3},
            "without_level": {"n": 1, "first": [f"{math_jsonl}:5"]},
            "without_answer": {"n": 1, "first": [f"{math_jsonl}:3"]},
            "instructions": {"n": 0, "text": None},
            "duplicates": {
                "n": 2,
                "with_another_answer": 1,
                "first": [[f"{math_jsonl}:1", f"{math_jsonl}:4", f"{math_jsonl}:7"]],
            },
            "overlap": {"aime24": {"n": 1, "first": [[f"{math_jsonl}:6", f"{aime}:2"]]}},
            "dropped": {"duplicates": False, "overlap": False},
            "written": 4,
            "file": str(tmp_path / "out" / "train.parquet"),
        }
    }
    notes = " ".join(report["notes"])
    assert "has 7 rows; MATH as published has 7,500" in notes
    assert "aime.arrow has" not in notes  # no count of a set that is only compared with

    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["2", "2", "025", "3"]
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2, 3]
    assert rows[2] == {
        "data_source": "math",
        "prompt": messages("Shared with AIME.", "qwen-boxed"),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "025"},
        "extra_info": {
            "split": "train",
            "index": 2,
            "level": 5,
            "type": "Algebra",
            "template": "qwen-boxed",
            "source": "train.jsonl",
            "source_row": 6,
        },
    }
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["train.parquet"]


def test_math_drops_what_it_is_told_to(math_jsonl, aime, tmp_path):
    arguments = ("math", "--source", math_jsonl, "--against", aime, "--force", "--out", tmp_path / "out")

    def sources(*options):
        report = run_json(*arguments, *options)
        rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
        assert report["sets"]["math"]["written"] == len(rows)
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        return [row["extra_info"]["source_row"] for row in rows]

    assert sources("--drop-duplicates") == [1, 6]
    assert sources("--drop-overlap") == [1, 4, 7]
    assert sources("--drop-duplicates", "--drop-overlap") == [1]
    assert sources("--levels", "1") == [2]
    assert sources("--levels", "1,4-5") == [2, 4, 6, 7]


@pytest.mark.parametrize("levels", ["0-3", "3-6", "5-3", "x", "", "3-", "1;2"])
def test_levels_that_are_none(levels, tmp_path):
    done = run("math", "--levels", levels, "--out", tmp_path, code=2)
    assert "levels, 1 to 5" in done.output


def test_math_finds_its_file_and_the_evaluation_sets_in_a_folder(math_jsonl, aime, tmp_path):
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [{"question": "q", "answer": "#### 1"}])
    report = run_json("math", "--source", tmp_path, "--out", tmp_path / "out")
    assert report["sets"]["math"]["from"] == [str(math_jsonl)]
    assert report["against"] == [str(aime)]
    # In a folder of another name, the one file that is called train.
    other = tmp_path / "mine"
    other.mkdir()
    math_jsonl.rename(other / "train.jsonl")
    report = run_json("math", "--source", other, "--out", tmp_path / "out2")
    assert report["sets"]["math"]["read"] == 7
    assert any("--against" in note for note in report["notes"])
    run("math", "--source", other, "--out", tmp_path / "out3", "--drop-overlap", code=2)
    write_jsonl(other / "train.jsonl.gz", [])
    done = run("math", "--source", other, "--out", tmp_path / "out4", code=2)
    assert "2 files" in done.output


def test_the_same_input_gives_the_same_bytes(math_jsonl, tmp_path):
    for out in ("a", "b"):
        run("math", "--source", math_jsonl, "--out", tmp_path / out)
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()


def test_what_is_written_can_be_read_again(math_jsonl, aime, tmp_path):
    """Our own files are a source as any other, whatever the template put around the problems."""
    for template in TEMPLATES:
        out = tmp_path / template
        run("eval", "--source", aime, "--template", template, "--out", out)
        again = run_json("eval", "--source", out, "--template", "none", "--out", out / "again")
        assert again["sets"]["aime24"]["from"] == [str(out / "aime24.parquet")]
        (row, _) = pq.read_table(out / "again" / "aime24.parquet").to_pylist()
        assert row["prompt"] == [{"role": "user", "content": "Another."}]
        against = run_json("math", "--source", math_jsonl, "--against", out, "--out", out / "math")
        assert against["sets"]["math"]["overlap"]["aime24"]["n"] == 1


def test_a_second_call_does_not_read_what_the_first_wrote(tmp_path, math_jsonl, aime):
    for out in ("math", "a"):  # a name that MATH's own folder has, and one that comes first
        for _ in range(2):
            report = run_json("eval", "--source", tmp_path, "--out", tmp_path / out, "--force")
            assert report["sets"]["aime24"]["from"] == [str(aime)]
            assert report["sets"]["aime24"]["not_read"] == []
            report = run_json("math", "--source", tmp_path, "--out", tmp_path / "out", "--force")
            assert report["sets"]["math"]["from"] == [str(math_jsonl)]
        (tmp_path / out / "aime24.parquet").unlink()


# Errors, and what is left behind


def test_a_bad_line_is_named_and_nothing_is_written(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", MATH_ROWS)
    with path.open("a") as file:
        file.write("\n{broken\n")
    done = run("math", "--source", path, "--out", tmp_path / "out", code=1)
    assert f"{path}:9: not JSON" in done.output
    write_jsonl(path, [*MATH_ROWS, {"answer": "1"}])
    done = run("math", "--source", path, "--out", tmp_path / "out", code=1)
    assert f"{path}:8: the row has no problem" in done.output
    other = write_parquet(tmp_path / "train.parquet", [{"Text": "p", "answer": "1"}])
    done = run("math", "--source", other, "--out", tmp_path / "out", code=1)
    assert "its columns are 'Text', 'answer'" in done.output, "those that are not read, too"
    assert not (tmp_path / "out").exists()


def test_an_output_is_replaced_only_with_force(math_jsonl, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.parquet").write_text("mine")
    done = run("math", "--source", math_jsonl, "--out", out, code=2)
    assert f"{out / 'train.parquet'} exists already; --force replaces" in done.output
    run("arithmetic", "--out", out, code=2)
    assert (out / "train.parquet").read_text() == "mine"
    assert [p.name for p in out.iterdir()] == ["train.parquet"]
    run("math", "--source", math_jsonl, "--out", out, "--force")
    assert pq.read_table(out / "train.parquet").num_rows == 4


def test_a_failure_while_writing_leaves_what_was_there(math_jsonl, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run("math", "--source", math_jsonl, "--out", out)
    before = (out / "train.parquet").read_bytes()

    def fails(table, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", fails)
    done = run("math", "--source", math_jsonl, "--out", out, "--force", code=2)
    assert "no space left" in done.output
    assert (out / "train.parquet").read_bytes() == before
    assert [p.name for p in out.iterdir()] == ["train.parquet"]


def test_sources_that_are_not_there(tmp_path, math_jsonl, aime):
    for arguments, message in [
        (("math", "--source", tmp_path / "none.jsonl"), "none.jsonl is not there"),
        (("math", "--source", aime.parent / "math", "--against", tmp_path / "no"), "no is not there"),
        (("eval", "--source", math_jsonl.parent), "has no file of an evaluation set"),
        (("eval", "--source", math_jsonl), "is not named like a file of an evaluation set"),
        (("eval", "--source", aime, "--sets", "aime24,amc"), "No file of amc is in"),
        (("eval", "--source", aime, "--sets", "aime23"), "there is no aime23"),
    ]:
        done = run(*arguments, "--out", tmp_path / "out", code=2)
        assert message in " ".join(done.output.split()), done.output
    assert not (tmp_path / "out").exists()


def test_no_row_left(tmp_path, math_jsonl):
    write_jsonl(math_jsonl, MATH_ROWS[:1])
    done = run("math", "--levels", "5", "--source", math_jsonl, "--out", tmp_path / "out", code=1)
    assert "no row with an answer is at the levels 5" in done.output
    write_jsonl(math_jsonl, [math_row("p", r"\boxed{1}", None)])
    done = run("math", "--source", math_jsonl, "--out", tmp_path / "out", code=1)
    assert "none of the 1 rows has a level (1 to 5, in a column `level` or in extra_info.level)" in done.output
    empty = write_jsonl(tmp_path / "amc.jsonl", [{"problem": "p", "answer": ""}])
    done = run("eval", "--source", empty, "--out", tmp_path / "out", code=1)
    assert "amc.jsonl has no row with an answer" in done.output
    assert not (tmp_path / "out").exists()


# sspo data eval


def test_eval(tmp_path, aime):
    gsm8k = write_jsonl(tmp_path / "gsm8k" / "test.jsonl", [{"question": "q", "answer": "#### 1"}] * 2)
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [{"question": "not this one", "answer": "#### 1"}])
    mine = write_jsonl(tmp_path / "x.jsonl", [{"problem": "Another", "answer": ["1", "one"]}, {"problem": "m"}])
    write_jsonl(tmp_path / "last" / "aime24.jsonl", [{"problem": "other", "answer": "1"}])
    report = run_json(
        "eval", "--source", f"minerva={mine}", "--source", tmp_path, "--template", "none", "--out", tmp_path / "out"
    )
    sets = report["sets"]
    assert {name: (each["read"], each["written"]) for name, each in sets.items()} == {
        "aime24": (2, 2),
        "minerva": (2, 1),
        "gsm8k": (2, 2),
    }
    assert sets["aime24"]["from"] == [str(aime)]
    assert sets["aime24"]["not_read"] == [str(tmp_path / "last" / "aime24.jsonl")]
    assert sets["aime24"]["overlap"] == {"minerva": {"n": 1, "first": [[f"{aime}:1", f"{mine}:1"]]}}
    assert sets["minerva"]["without_answer"] == {"n": 1, "first": [f"{mine}:2"]}
    assert sets["minerva"]["several_notations"] == {"n": 1, "first": [f"{mine}:1"]}
    assert sets["gsm8k"]["duplicates"]["n"] == 1
    assert sets["gsm8k"]["from"] == [str(gsm8k)]
    assert any("not written: math500, amc23, amc, olympiadbench" in note for note in report["notes"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "aime24.parquet",
        "gsm8k.parquet",
        "minerva.parquet",
    ]
    (row,) = pq.read_table(tmp_path / "out" / "minerva.parquet").to_pylist()
    assert (row["data_source"], row["extra_info"]["split"], row["extra_info"]["level"]) == ("minerva", "test", None)
    # Files of other sets in the folder are in nobody's way.
    run(
        "eval",
        "--source",
        write_jsonl(tmp_path / "amc.jsonl", [{"problem": "p", "answer": 1.0}]),
        "--out",
        tmp_path / "out",
    )


def test_a_prompt_has_one_instruction(tmp_path):
    """Rows as verl's script for GSM8K writes them, in the file that it calls so; and such as nobody knows."""

    def rows(around):
        questions = [f"How much is {n} + {n}?" for n in range(instruction.MIN_ROWS)]
        return [
            {"prompt": [{"role": "user", "content": around.format(q)}], "reward_model": {"ground_truth": str(2 * n)}}
            for n, q in enumerate(questions)
        ]

    write_parquet(tmp_path / "gsm8k" / "test.parquet", rows(VERLS[0]))
    report = run_json("eval", "--source", tmp_path, "--out", tmp_path / "out")["sets"]["gsm8k"]
    assert report["instructions"] == {"n": 10, "text": VERLS[0].format("").strip()}
    contents = [row["prompt"][-1]["content"] for row in pq.read_table(tmp_path / "out/gsm8k.parquet").to_pylist()]
    assert contents[3] == "How much is 3 + 3?\n" + INSTRUCTION
    assert (
        "10 problems contained an instruction, which was removed"
        in run(*("eval", "--source", tmp_path / "gsm8k", "--out", tmp_path / "again")).stdout
    )

    r1 = "A conversation between User and Assistant. The user asks, the assistant thinks. User: {}\nAssistant:"
    write_parquet(tmp_path / "gsm8k" / "test.parquet", rows(r1))
    refused = run("eval", "--source", tmp_path / "gsm8k", "--out", tmp_path / "no", code=1).stderr
    assert (
        "begin or end with 'A conversation between User and Assistant. The user asks, the assistant thinks." in refused
    )
    unknown = "{} Write the answer between <answer> and </answer>."
    write_parquet(tmp_path / "gsm8k" / "test.parquet", rows(unknown))
    refused = run("eval", "--source", tmp_path / "gsm8k", "--out", tmp_path / "no", code=1).stderr
    assert "most problems begin or end with 'Write the answer between <answer> and </answer>.'" in refused
    assert not (tmp_path / "no").exists()
    alone = run_json("eval", "--source", tmp_path / "gsm8k", "--out", tmp_path / "none", "--template", "none")
    assert "which is kept: 'Write the answer" in alone["notes"][0]


def test_all_files_have_one_schema(tmp_path, math_jsonl, aime):
    run("math", "--source", math_jsonl, "--out", tmp_path / "out")
    run("eval", "--source", aime, "--template", "none", "--out", tmp_path / "out")  # no levels, no types
    one, other = (pq.read_schema(tmp_path / "out" / f"{name}.parquet") for name in ("train", "aime24"))
    assert one.equals(other)
    assert one.field("extra_info").type.field("level").type == pa.int64()


def test_the_report_on_the_terminal(tmp_path, math_jsonl, aime):
    done = run("math", "--source", math_jsonl, "--against", aime, "--out", tmp_path / "out", "--drop-overlap")
    text = " ".join(done.stdout.split())
    for part in (
        "math 7 1 2 3 ",
        "math: 5 rows at these levels (level 3: 1, level 4: 1, level 5: 3)",
        f"1 rows without an answer, left out: {math_jsonl}:3",
        f"2 duplicates, kept, 1 with different answers: {math_jsonl}:1 = {math_jsonl}:4 = {math_jsonl}:7",
        f"1 problems also in aime24, left out: {math_jsonl}:6 = {aime}:2",
        "template: qwen-boxed",
    ):
        assert part in text


# The hub


def test_a_hub_that_is_not_there_is_one_error(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("Couldn't reach it\nand many more lines")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    for arguments in (("math",), ("eval",), ("eval", "--sets", "amc")):
        done = run(*arguments, "--out", tmp_path / "out", code=2)
        assert "Couldn't reach it" in done.output
        assert "--source FILE" in done.output
        assert "many more lines" not in done.output
        assert "Traceback" not in done.output
    assert "AI-MO/aimo-validation-amc" in done.output
    assert not (tmp_path / "out").exists()


def test_the_hub_is_asked_for_these_sets(tmp_path, monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        if name == "DigitalLearningGmbH/MATH-lighteval":
            return datasets.Dataset.from_list(MATH_ROWS)
        problem = "question" if name.split("/")[1] in ("gsm8k", "amc23", "minervamath") else "problem"
        if "Olympiad" in name:
            return datasets.Dataset.from_list([{"question": "o", "final_answer": ["$1$"]}])
        return datasets.Dataset.from_list([{problem: f"Of {name}", "answer": "#### 7" if "gsm8k" in name else "7"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    report = run_json("math", "--out", tmp_path)
    assert report["sets"]["math"]["written"] == 4
    assert list(report["sets"]["math"]["overlap"]) == list(EVALUATION)
    assert asked == [
        ("DigitalLearningGmbH/MATH-lighteval", None, "train"),
        ("HuggingFaceH4/MATH-500", None, "test"),
        ("HuggingFaceH4/aime_2024", None, "train"),
        ("math-ai/amc23", None, "test"),
        ("AI-MO/aimo-validation-amc", None, "train"),
        ("math-ai/minervamath", None, "test"),
        ("zwhe99/simplerl-OlympiadBench", None, "test"),
        ("openai/gsm8k", "main", "test"),
    ]
    row = pq.read_table(tmp_path / "train.parquet").to_pylist()[2]
    assert row["extra_info"]["source"] == "DigitalLearningGmbH/MATH-lighteval"
    assert row["extra_info"]["source_row"] == 6
    asked.clear()
    report = run_json("eval", "--sets", "gsm8k,olympiadbench", "--out", tmp_path / "e")
    assert [each[0] for each in asked] == ["openai/gsm8k", "zwhe99/simplerl-OlympiadBench"]
    assert pq.read_table(tmp_path / "e" / "gsm8k.parquet").to_pylist()[0]["reward_model"]["ground_truth"] == "7"
    assert "openai/gsm8k has 1 rows; GSM8K as published has 1,319." in report["notes"]


def test_the_hub_is_silent_only_while_it_is_asked(monkeypatch):
    import logging

    logger = logging.getLogger("huggingface_hub")
    during = []
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: during.append(logger.level) or [])
    hub.load(MATH)
    assert (during, logger.level) == ([logging.ERROR], logging.INFO)


# sspo data arithmetic


def test_arithmetic_is_the_set_of_the_quickstart(tmp_path):
    report = run_json("arithmetic", "--out", tmp_path / "out")
    arithmetic.write_parquet(tmp_path / "quickstart")
    for split, rows in (("train", 2048), ("test", 256)):
        name = f"{split}.parquet"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "quickstart" / name).read_bytes()
        assert report["sets"][f"sums ({split})"]["written"] == rows
    run("arithmetic", "--out", tmp_path / "out", code=2)
