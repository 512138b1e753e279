"""The setting `segmenter`: in verl's loss and dumps, refused on the driver, one's own from a file or a package."""

import re
import sys
from pathlib import Path

import pytest
import torch
import verl.utils.config  # the driver's way in: the plugin wraps validate_config
from compose import RUNNABLE, trainer_config
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss
from verl_batch import TOKENIZER, actor_config, micro_batch, padded, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.metrics import dump, finalize
from sspo_verl.names import KEY
from sspo_verl.plugin.actor import COUNTS
from sspo_verl.plugin.check_run import check_run
from sspo_verl.plugin.driver import Report
from sspo_verl.plugin.run_notes import notes
from sspo_verl.plugin.run_settings import run_of
from sspo_verl.plugin.segmenter import segmenter_on

EVERYTHING = [0, 1, 2, 3]
OWN = """
from sspo_verl.segmenters import register_segmenter

@register_segmenter("{name}", needs_entropy={entropy})
def {name}(tokenizer, settings):
    return lambda token_ids, response_mask, entropy: {cut}
"""
ONE_SEGMENT = "response_mask.bool().long() - 1"


def loss_of(policy_loss, rows=None, **config):
    data, output = micro_batch(rows or responses(seed=0), EVERYTHING)
    loss, metrics = ppo_loss(config=actor_config(policy_loss, **config), model_output=output, data=data)
    loss.backward()
    return loss.detach(), output["log_probs"].grad.values(), metrics


@pytest.mark.parametrize(("segmenter", "verls"), [("token", "vanilla"), ("response", "gspo")])
def test_token_is_verls_vanilla_and_response_is_verls_gspo(segmenter, verls):
    ours = SSPOPolicyLossConfig(segmenter=segmenter, entropy_clip=False, clip_low=0.8, clip_high=1.2)
    clip = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 1e12}
    loss, grad, _ = loss_of(ours)
    expected, its, _ = loss_of(PolicyLossConfig(loss_mode=verls), **clip)
    assert loss.abs() > 1e-3
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, its)


@pytest.mark.parametrize(
    ("settings", "segments"),
    [
        ({}, 9),
        ({"segmenter": "turn"}, 5),
        ({"segmenter": "response"}, 4),
        ({"segmenter": "fixed", "segment_tokens": 4}, 11),
        ({"segmenter": "regex", "segment_regex": "[xb]"}, 8),
        ({"segment_max_tokens": 100}, 9),
        ({"segmenter": "response", "segment_max_tokens": 5}, 9),
    ],
    ids=str,
)
def test_the_loss_and_its_counts_are_those_of_the_segmenter(settings, segments):
    _, _, metrics = loss_of(SSPOPolicyLossConfig(**settings))
    assert finalize.metrics([metrics[COUNTS].value])["sspo/segments_per_response"] == segments / 4


def test_entropy_cuts_at_that_of_the_old_policy():
    rows = responses(seed=0)
    settings = SSPOPolicyLossConfig(segmenter="entropy", segment_entropy_share=0.2, entropy_source="current")
    data, output = micro_batch(rows, EVERYTHING)
    with_current = loss_of(settings, rows)
    cut = segmenter_on(torch.device("cpu"), TOKENIZER, settings.segments())
    old = cut(padded(rows["responses"]), padded(rows["response_mask"]), padded(rows["entropy"]))
    assert with_current[0].isfinite()
    assert (
        finalize.metrics([with_current[2][COUNTS].value])["sspo/segments_per_response"]
        == (old.amax(dim=1) + 1).float().mean()
    )
    assert old.amax(dim=1).min() > 0
    del data["entropy"]
    with pytest.raises(RuntimeError, match=r"policy_loss\.segmenter=entropy .*bypass_mode"):
        ppo_loss(config=actor_config(settings), model_output=output, data=data)


def test_one_is_made_once_for_a_tokenizer_and_its_settings():
    cpu, settings = torch.device("cpu"), SSPOPolicyLossConfig(segmenter="sentence").segments()
    first = segmenter_on(cpu, TOKENIZER, settings)
    assert segmenter_on(cpu, TOKENIZER, SSPOPolicyLossConfig(segmenter="sentence").segments()) is first
    assert segmenter_on(cpu, TOKENIZER, SSPOPolicyLossConfig(segmenter="turn").segments()) is not first


# On the driver


def validate(*overrides):
    config = trainer_config(*RUNNABLE, "algorithm=sspo", *(f"{KEY}.{override}" for override in overrides))
    verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["segmenter=words"], "segmenter=words is unknown. Available: .*sentence"),
        (["segmenter=null"], "segmenter=None is unknown. Available: .*sentence"),
        (["segmenter=5"], "segmenter=5 is unknown. Available: .*sentence"),
        (["segmenter=[line_break]"], "segmenter=\\['line_break'\\] is unknown. Available: .*sentence"),
        (["segmenter={a: 1}"], "segmenter={'a': 1} is unknown. Available: .*sentence"),
        (["segmenter=fixed"], "segment_tokens must be set with segmenter=fixed"),
        (["segmenter=fixed", "segment_tokens=0"], "segment_tokens must be an integer, 1 or more"),
        (["segmenter=fixed", "segment_tokens=2.5"], "segment_tokens must be an integer, 1 or more"),
        (["segment_tokens=8"], "segment_tokens=8 has no effect .*segment_tokens=null, or segmenter=fixed"),
        (["segmenter=entropy"], "segment_entropy_share must be set"),
        (["segmenter=entropy", "segment_entropy_share=10"], "segment_entropy_share must be over 0 and at most 1"),
        (["segmenter=entropy", "segment_entropy_share=.nan"], "segment_entropy_share must be over 0 and at most 1"),
        (["segmenter=turn", "segment_entropy_share=0.1"], "segment_entropy_share=0.1 has no effect"),
        (["segmenter=regex"], "segment_regex must be set"),
        (["segmenter=regex", "segment_regex='['"], "segment_regex='\\[' is not a regular expression"),
        (["segment_max_tokens=true"], "segment_max_tokens must be an integer"),
        (["segmenter=pkg://no.such:one"], "no.such cannot be loaded .ModuleNotFoundError"),
        (["segmenter=pkg://sspo_verl.loss:one"], "has no function 'one'"),
        (["segmenter=/no/such.py:one"], "/no/such.py cannot be loaded .FileNotFoundError"),
        (["segmenter=mine.py:one"], "absolute path"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_the_key(overrides, said):
    with pytest.raises(ValueError, match=said) as error:
        validate(*overrides)
    assert KEY in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["segmenter=sentence", "segment_max_tokens=64"],
        ["segmenter=fixed", "segment_tokens=1"],
        ["segmenter=entropy", "segment_entropy_share=1"],
        ["segmenter=regex", "segment_regex='[;:\\n]'"],
        ["segmenter=pkg://sspo_verl.segmenters.plain:turn"],
    ],
)
def test_what_fits_passes(overrides):
    validate(*overrides)


def test_entropy_without_a_pass_that_computes_it_is_refused():
    settings = (f"{KEY}.segmenter=entropy", f"{KEY}.segment_entropy_share=0.1", f"{KEY}.entropy_clip=false")
    bypass = "algorithm.rollout_correction.bypass_mode=true"
    with pytest.raises(ValueError, match=r"segmenter=entropy .*bypass_mode=True. Set another segmenter or bypass_mode"):
        check_run(trainer_config(*RUNNABLE, "algorithm=sspo", *settings, bypass))
    check_run(trainer_config(*RUNNABLE, "algorithm=sspo", *settings))


def test_the_log_names_the_segmenter():
    config = trainer_config(*RUNNABLE, "algorithm=sspo", f"{KEY}.segmenter=sentence")
    assert "policy loss sspo with segmenter=sentence, advantage" in next(iter(notes(run_of(config))))


def test_only_a_segmenter_that_needs_line_breaks_asks_for_them():
    class Letters(type(TOKENIZER)):
        def decode(self, ids):
            return "".join(chr(97 + i % 26) for i in ids)

    for settings in (SSPOPolicyLossConfig(segmenter="turn"), SSPOPolicyLossConfig(segmenter="sentence")):
        Report(settings, Letters(), updates=1).check_tokenizer()
    for settings in (SSPOPolicyLossConfig(), SSPOPolicyLossConfig(segmenter="regex", segment_regex=";")):
        with pytest.raises(ValueError, match="contains a"):
            Report(settings, Letters(), updates=1).check_tokenizer()


def test_a_validation_dump_is_cut_by_the_segmenter():
    class Bytes(type(TOKENIZER)):
        def encode(self, text, add_special_tokens=True):
            return list(text.encode())

    tokenizer = Bytes()
    settings = SSPOPolicyLossConfig(segmenter="sentence", dump_segments=8)
    fields = Report(settings, tokenizer, 1).dump_fields({"uid": ["p_0_0"]}, ["A. B.\nC"])
    assert fields["sspo_segments"] == [3]
    assert fields["sspo_segment_tokens"] == [[2, 4, 1]]
    # A text has no entropies.
    settings = SSPOPolicyLossConfig(segmenter="entropy", segment_entropy_share=0.1, dump_segments=8)
    fields = Report(settings, tokenizer, 1).dump_fields({"uid": ["p_0_0"]}, ["A. B.\nC"])
    assert fields["sspo_segments"] == [None]
    assert dump.UNKNOWN.tokens is None


# One's own


@pytest.mark.parametrize("place", ["{file}:{name}", "file://{file}:{name}", "pkg://{name}:{name}"])
def test_a_function_of_ones_own_trains(tmp_path, monkeypatch, place):
    name = f"mine_{place[:3].strip('{')}"
    file = tmp_path / f"{name}.py"
    file.write_text(OWN.format(name=name, entropy=False, cut=ONE_SEGMENT))
    monkeypatch.syspath_prepend(str(tmp_path))
    where = place.format(file=file, name=name)
    loss, grad, _ = loss_of(SSPOPolicyLossConfig(segmenter=where))
    expected, its, _ = loss_of(SSPOPolicyLossConfig(segmenter="response"))
    assert torch.equal(loss, expected)
    assert torch.equal(grad, its)
    # Loaded, it has its name.
    assert torch.equal(loss_of(SSPOPolicyLossConfig(segmenter=name))[0], expected)


def test_a_function_that_needs_entropy_gets_that_of_the_old_policy(tmp_path):
    (tmp_path / "mine.py").write_text(
        OWN.format(name="sure", entropy=True, cut="(response_mask.bool() & (entropy >= 0)).long() - 1")
    )
    settings = SSPOPolicyLossConfig(segmenter=f"{tmp_path}/mine.py:sure", entropy_clip=False)
    assert loss_of(settings)[0].isfinite()
    data, output = micro_batch(responses(seed=0), EVERYTHING)
    del data["entropy"]
    with pytest.raises(RuntimeError, match="cuts by the entropy of the old_log_prob pass"):
        ppo_loss(config=actor_config(settings), model_output=output, data=data)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "def mine(tokenizer): return None",
            "it raises TypeError: mine() takes 1 positional argument but 2 were given",
        ),
        ("def mine(tokenizer, settings): raise KeyError('x')", "it raises KeyError: 'x'"),
        ("def mine(tokenizer, settings): raise ValueError('bad vocabulary')", "it raises ValueError: bad vocabulary"),
        ("def mine(tokenizer, settings): raise SystemExit(4)", "it raises SystemExit: 4"),
        ("from os import getcwd as mine", "it raises TypeError: posix.getcwd() takes no arguments (2 given)"),
        ("from random import random as mine", "it raises TypeError: Random.random() takes no arguments (2 given)"),
    ],
)
def test_a_factory_that_fails_is_refused(tmp_path, code, why):
    (tmp_path / "mine.py").write_text(code)
    place = f"{tmp_path}/mine.py:mine"
    with pytest.raises(ValueError, match="must be a function") as error:
        segmenter_on(torch.device("cpu"), TOKENIZER, SSPOPolicyLossConfig(segmenter=place).segments())
    assert str(error.value) == (
        f"{KEY}.segmenter={place}: it must be a function (tokenizer, settings) -> segmenter (docs/segments.md has an "
        f"example), but {why}."
    )


def test_a_file_that_ends_the_process_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit(4)")
    with pytest.raises(ValueError, match=r"mine.py cannot be loaded .SystemExit: 4"):
        SSPOPolicyLossConfig(segmenter=f"{tmp_path}/mine.py:mine")


def test_a_taken_name_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(OWN.format(name="turn", entropy=False, cut=ONE_SEGMENT))
    with pytest.raises(ValueError, match=r"segmenter 'turn' is sspo_verl.segmenters.plain.turn already"):
        SSPOPolicyLossConfig(segmenter=f"{tmp_path}/mine.py:turn")


def test_the_example_of_the_page_cuts_at_blank_lines(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "segments.md").read_text()
    (code,) = re.findall(r"```python\n# my_segmenters.py\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "my_segmenters.py"
    file.write_text(code)
    lines = code[code.index("@register_segmenter") :].splitlines()
    assert sum(bool(line) for line in lines) <= 10
    cut = segmenter_on(
        torch.device("cpu"), Paragraphs(), SSPOPolicyLossConfig(segmenter=f"{file}:paragraph").segments()
    )
    rows = torch.tensor([[0, 1, 0, 2, 0, 1, 2, 2, 0]])
    assert cut(rows, torch.ones_like(rows), None).tolist() == [[0, 0, 0, 0, 1, 1, 1, 2, 3]]
    assert "my_segmenters" not in sys.modules


class Paragraphs:
    all_special_ids = ()

    def __len__(self):
        return 3

    def decode(self, ids):
        return "".join(("a", "\n", ".\n\n")[i] for i in ids)
