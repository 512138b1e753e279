"""The reward as verl calls it: through verl's own loading, in its reward manager, in a real Ray actor."""

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from compose import trainer_config
from omegaconf import OmegaConf

from sspo_verl.plugin import check_run, reward_metrics
from sspo_verl.reward import formats
from sspo_verl.reward import math as reward
from sspo_verl.reward.judge import Verdict
from sspo_verl.reward.notes import Notes

KEYS = {"score", "acc", "boxed", "timeout", "failed"}
SETTINGS = {"path": "pkg://sspo_verl.reward.math", "name": "compute_score"}


@pytest.fixture(scope="module", autouse=True)
def _no_worker_is_left():
    yield
    reward.close()


@pytest.fixture(scope="module")
def loaded():
    """The function as verl loads it, with a setting from the command line."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = {"reward": {"custom_reward_function": SETTINGS | {"reward_kwargs": {"seconds": 1.0, "workers": 1}}}}
    return get_custom_reward_fn(OmegaConf.create(config))


@pytest.mark.parametrize(
    ("response", "gold", "marks"),
    [
        (r"\boxed{\dfrac{1}{2}}", r"\frac12", {"score", "acc", "boxed"}),
        (r"\boxed{1+x}", "x+1", {"score", "acc", "boxed"}),
        (r"\boxed{2+x}", "x+1", {"boxed"}),
        ("x+1", "x+1", set()),
        (None, "x+1", set()),
        (r"\boxed{\prod_{k=1}^{100000}(x+k)}", "x+1", {"boxed", "timeout"}),
        (r"\boxed{x+1}", "", {"boxed", "failed"}),
        (r"\boxed{x+1}", {"target": "x+1"}, {"boxed", "failed"}),
    ],
)
def test_through_verls_loading_the_keys_are_always_the_same(loaded, response, gold, marks):
    scored = loaded(data_source="math", solution_str=response, ground_truth=gold, extra_info={"index": 1})
    assert scored.keys() == KEYS
    assert all(type(value) is float for value in scored.values())
    assert {key for key, value in scored.items() if value} == marks


def test_a_mistyped_setting_is_refused():
    with pytest.raises(TypeError, match="secs"):
        reward.compute_score("math", "", "", secs=3)  # pyright: ignore[reportCallIssue]


def test_settings_that_are_not_possible_end_the_run_before_it_starts():
    """In verl's validate_config, which the driver calls before any rollout; by the module's name and by its file."""
    from verl.utils.config import validate_config

    there = "there are boxed, hash, tag, last_number, and a regular expression with one group around the answer"
    for setting, said in (
        (
            "answr=hash",
            "reward_kwargs.answr: sspo_verl.reward.math has no such setting. It has answer, seconds, workers",
        ),
        ("answer=box", f"reward_kwargs.answer='box' is unknown, and as a regular expression it has no group: {there}"),
        ("answer='(a)(b)'", f"it has 2 groups, none of them called `answer`: {there}"),
        ("answer='(a'", "is not a regular expression"),
        ("answer=4", "answer=4 is not a text"),
        ("seconds=0", "reward_kwargs.seconds=0: must be the limit of CPU seconds"),
        ("workers=half", "reward_kwargs.workers='half': must be an integer of 1 or more"),
        ("workers=true", "reward_kwargs.workers=True must be a number"),
        ("seconds=true", "reward_kwargs.seconds=True must be a number"),
    ):
        for path in (SETTINGS["path"], reward.__file__):
            config = trainer_config(
                f"reward.custom_reward_function.path={path}", f"+reward.custom_reward_function.reward_kwargs.{setting}"
            )
            with pytest.raises(ValueError, match=re.escape(said)):
                validate_config(config, use_reference_policy=False, use_critic=False)
    others = trainer_config(
        "reward.custom_reward_function.path=mine.py", "+reward.custom_reward_function.reward_kwargs.a=1"
    )
    check_run.check_reward(others)
    for overrides, said in (
        (["path=5"], "reward.custom_reward_function.path=5 must be a file, or pkg:// and a module"),
        (
            [f"path={SETTINGS['path']}", "reward_kwargs=5"],
            "reward_kwargs=5 must be a mapping with keys of answer, seconds",
        ),
    ):
        config = trainer_config(*(f"++reward.custom_reward_function.{override}" for override in overrides))
        with pytest.raises(ValueError, match=re.escape(said)):
            check_run.check_reward(config)


HASH = "We add.\n#### {}"
READ = {  # by each format: responses, and the answer that is found
    "boxed": {r"\boxed{18} #### 3": "18", HASH.format(18): None},
    "hash": {
        HASH.format(18): "18",
        "#### 1\n#### $1,200 \nso": "$1,200",
        "#### 7\n####\n": "7",
        r"#### **\boxed{5}**": "5",
        "####18 apples": "18 apples",
        r"\boxed{18}": None,
        "##### Heading": None,
        "### 3": None,
    },
    "tag": {
        "<answer>18</answer>": "18",
        "<answer>1</answer> no <answer>\n1 2\n3 4\n</answer>": "1 2\n3 4",
        "<answer>1 <answer>2</answer> <answer> </answer> </answer>": "2",
        "<answer>18": None,
        r"\boxed{18}": None,
    },
    "last_number": {
        "is 18.": "18", "x = -2": "-2", "is -$5": "-$5", "so $1,234.50!": "$1,234.50",
        "3/4": "3/4", r"-\frac{1}{2}": r"-\frac{1}{2}", r"\boxed{-5}": "-5", "18%": "18%", "1.5e-3": "1.5e-3",
        "18 cm": "18", "**42**": "42", "5^\\circ": "5", "no": None,
        r"\sqrt{2}": None, "x^2": None, "2x": None, r"5 \pi": None, r"3 \cdot 4": None, "3(x+1)": None,
        "3-2": None, "x - 2": None, "x -2": None, r"10^{3}": None, "3(x+y)": None,
    },
    r"[Aa]nswer: *(.+?)\.?$": {"Answer: 3\nAnswer: 4.": "4", "answer: x+1": "x+1", "Answer:": None},
    r"<(a|b)>(?P<answer>.*?)</\1>": {"<a>1</a><b>2</b>": "2", "<a> </a>": None, "<a>3": None},
}  # fmt: skip


def test_where_an_answer_is():
    for answer, cases in READ.items():
        read = formats.choose(answer).read
        assert read(None) is None
        for response, expected in cases.items():
            assert read(response) == expected, (answer, response)


def test_verls_own_format_scores_what_it_should_when_asked_for():
    scored = [reward.compute_score("gsm8k", HASH.format(n), str(n), answer="hash")["score"] for n in range(300)]
    assert sum(scored) == 300
    assert reward.compute_score("gsm8k", HASH.format(3), "4", answer="hash")["score"] == 0.0
    assert reward.compute_score("math", "Answer: 1+x", "x+1", answer="Answer: (.*)", workers=1)["score"] == 1.0


def test_a_pattern_that_hangs_is_a_time_out(monkeypatch):
    monkeypatch.setattr(formats, "PATTERN_SECONDS", 0.2)
    scored = reward.compute_score("math", "a" * 200 + "!", "1", answer=r"(?:a|aa|a*a)+?(?<=(a))$")
    assert {key for key, value in scored.items() if value} == {"timeout"}


def test_in_verls_reward_manager(loaded):
    """Its event loop hands the score to a thread, where math-verify's own time limit would raise."""
    import torch
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    class Tokenizer:
        def decode(self, ids, skip_special_tokens):
            return bytes(ids.tolist()).decode()

    text = torch.tensor([list(rb"so \boxed{1+x}")])
    data = DataProto.from_dict(
        tensors={"responses": text, "attention_mask": torch.ones_like(text)},
        non_tensors={
            "data_source": ["math"],
            "reward_model": [{"ground_truth": "x+1", "style": "rule"}],
            "extra_info": [{}],
        },  # pyright: ignore[reportArgumentType]
    )

    async def score():
        manager = NaiveRewardManager(OmegaConf.create({}), Tokenizer(), loaded)
        return await manager.run_single(data)

    result = asyncio.run(score())
    assert result["reward_score"] == 1.0
    assert result["reward_extra_info"].keys() == KEYS


def test_what_was_not_read_reaches_the_metrics_of_a_step(loaded, capsys):
    """The counters are of every response of a step: padding and the earlier outputs of a session do not count."""
    responses = {
        "p_0_0": r"\boxed{\prod_{k=1}^{100000}(x+k)}",
        "p_1_0": "18", "p_1_1": r"\boxed{18}", "q_0_0": "18", "q_1_0": "#### 18",
        "pad_0_0": "18",
    }  # fmt: skip
    infos = [loaded(data_source="math", solution_str=text, ground_truth="x+1") for text in responses.values()]

    class Trainer:
        config = trainer_config(f"reward.custom_reward_function.path={SETTINGS['path']}")

        def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
            metrics["verl"] = 1.0

    def kv_batch_get(keys, partition_id, select_fields):
        assert (keys, partition_id, select_fields) == (list(responses), "train", ["extra_fields"])
        return {"extra_fields": np.array([{"reward_extra_info": info} for info in infos], dtype=object)}

    module = SimpleNamespace(__name__="trainer_base", PPOTrainer=Trainer, tq=SimpleNamespace(kv_batch_get=kv_batch_get))
    reward_metrics.wrap_compute_metrics(module)
    tags = [{"is_padding": key.startswith("pad")} for key in responses]
    batch, metrics = SimpleNamespace(keys=list(responses), tags=tags, partition_id="train"), {}
    Trainer()._compute_metrics(batch, metrics, {}, global_steps=1, epoch=0)
    assert metrics == {
        "verl": 1.0,
        "sspo/reward/no_answer_frac": 2 / 4,
        "sspo/reward/timeout_frac": 1 / 4,
        "sspo/reward/failed_frac": 0.0,
    }
    assert "WARNING" not in capsys.readouterr().out
    infos[:] = [loaded(data_source="math", solution_str="18", ground_truth="18")] * 6
    for _ in range(2):
        Trainer()._compute_metrics(batch, metrics, {}, global_steps=2, epoch=0)
    assert capsys.readouterr().out.count("Hardly any response has an answer") == 1

    Trainer.config = trainer_config()  # another reward: nothing is fetched
    module.tq, metrics = None, {}
    Trainer()._compute_metrics(batch, metrics, {}, global_steps=1, epoch=0)
    assert metrics == {"verl": 1.0}


@pytest.mark.slow
def test_in_an_async_ray_actor(tmp_path):
    """The installed package, in a Ray actor. Eight at once; a hanging one among them holds nobody up for good."""
    script = r"""
        import ray
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

        @ray.remote
        class Actor:
            async def score(self, answer):
                from sspo_verl.reward.math import compute_score
                return compute_score("d", "\\boxed{%s}" % answer, "1+x", seconds=5.0, workers=1)

        actor = Actor.remote()
        answers = ["x+1", r"\prod_{k=1}^{100000}(x+k)"] + ["x+%d" % n for n in range(6)]
        results = ray.get([actor.score.remote(answer) for answer in answers])
        print([int(r["score"]) for r in results], [int(r["timeout"]) for r in results], len(results[0]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONSAFEPATH": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1, 0, 0, 1, 0, 0, 0, 0] [0, 1, 0, 0, 0, 0, 0, 0] 5"


def test_without_math_verify_verl_is_told_when_it_loads_the_reward():
    script = f"import sys; sys.path[:] = {sys.path!r}; sys.modules['math_verify'] = None; import sspo_verl.reward.math"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900)
    assert done.returncode != 0
    assert (
        "sspo_verl.reward.math needs math_verify, which is not installed: pip install 'sspo_verl[math]'"
        in done.stderr.splitlines()[-1]
    )


def test_responses_without_an_answer_are_said_once_for_each_data_source(capsys):
    notes, none, found = Notes(), Verdict(False, None, "no_answer"), Verdict(False, "1", "ok")

    def said(source: str, verdicts, response: str = HASH, **more) -> list[str]:
        for n, verdict in enumerate(verdicts):
            notes.take(verdict, source, n, response.format(n) if response else None, **more)
        return capsys.readouterr().err.splitlines()

    assert said("verl", [none] * 99) == []
    (line,) = said("verl", [none])
    assert "of the first 100 responses of data_source 'verl', 100 have no answer (answer=boxed) and scored 0" in line
    assert r"The prompt must ask for the final answer within \boxed{}" in line
    assert "100 of them have one with +reward.custom_reward_function.reward_kwargs.answer=hash" in line
    assert line.count("ground truth") == 3
    assert r"They end in: 'We add.\n#### 0' (ground truth '0')" in line
    assert len(line) < 700
    assert said("verl", [none] * 300) == [], "once"
    assert said("some", [found] * 5 + [none] * 200) == []
    assert len(said("few", [found] * 4 + [none] * 200)) == 1
    assert len(said("silent", [none] * 200, response="")) == 1
    (line,) = said("boxes", [none] * 200, response=r"\boxed{{{}}}", answer="hash")
    assert "ask for the final answer after ####; 100 of them have one with" in line
    assert "reward_kwargs.answer=boxed" in line


def test_what_could_not_be_settled_is_printed_now_and_then(capsys):
    clock = iter([0.0, 10.0, 70.0])
    notes = Notes(clock=lambda: next(clock))
    right, late = Verdict(True, "1", "ok"), Verdict(False, "9^9", "timeout", "took too long")
    lines = []
    for verdict in (right, late, right, late, Verdict(False, "2", "failed", "it broke"), right):
        notes.take(verdict, "math", "4")
        lines.append(capsys.readouterr().err)
    assert [bool(line) for line in lines] == [False, True, False, False, True, False]
    assert "of 2 checks, 1 ran out of time and 0 failed" in lines[1]
    assert "of 3 checks, 1 ran out of time and 1 failed" in lines[4]
    assert "it broke (data_source 'math', answer '2', ground truth '4')" in lines[4]


def test_the_page_names_every_key():
    page = (Path(__file__).parents[2] / "docs" / "reward.md").read_text()
    assert all(f"`{key}`" in page for key in KEYS)
