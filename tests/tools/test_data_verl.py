"""Files of `sspo data`, in the hands of verl's dataset and rollout code: the layout, each template's prompt."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.utils.tokenizer.chat_template import initialize_system_prompt
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from sspo_verl.tools.data.command import command
from sspo_verl.tools.data.template import NO_CHAT_TEMPLATE, TEMPLATES
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"

# What Qwen2.5's chat template does with messages of which the first is the system's, in our words.
QWEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROBLEM = "Compute $1 + 1$."
RENDERED = {
    "qwen-boxed": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nCompute $1 + 1$.\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "qwen-math": (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\nCompute $1 + 1$.<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "none": PROBLEM,
}


@pytest.fixture
def tokenizer():
    tokenizer = byte_tokenizer.build()
    tokenizer.chat_template = QWEN
    return tokenizer


def make(folder, template):
    """One set with levels and one without, as a training and two evaluation files."""
    rows = {
        "math/train.jsonl": [
            {"problem": PROBLEM, "solution": "\\boxed{2}", "level": "Level 3", "type": "Algebra"},
            {"problem": "x" * 3000, "solution": "\\boxed{2}", "level": "Level 5", "type": "Algebra"},
        ],
        "amc.jsonl": [{"problem": PROBLEM, "answer": 2.0}],
        "gsm8k/test.jsonl": [{"question": PROBLEM, "answer": "#### 2"}],
    }
    for name, each in rows.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in each))
    out = folder / "out"
    for what in ("math", "eval"):
        arguments = [what, "--source", str(folder / "source"), "--template", template, "--out", str(out)]
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
    return out


def dataset(files, tokenizer, tmp_path):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer").data
    changes = {"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": True, "max_prompt_length": 2048}
    OmegaConf.set_struct(config, False)
    config = OmegaConf.merge(config, changes, {"filter_overlong_prompts_workers": None})
    return RLHFDataset([str(file) for file in files], tokenizer, config)


@pytest.mark.parametrize("template", TEMPLATES)
def test_verl_reads_all_files_at_once_and_renders_the_prompt(template, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    out = make(tmp_path, template)
    if template == "none":
        tokenizer.chat_template = NO_CHAT_TEMPLATE
    files = [out / f"{name}.parquet" for name in ("train", "amc", "gsm8k")]
    found = dataset(files, tokenizer, tmp_path)
    rows = [found[i] for i in range(len(found))]
    # Of the two training rows, the long one is filtered out: verl measured the prompt with this chat template.
    assert [(row["data_source"], row["extra_info"]["level"]) for row in rows] == [
        ("math", 3),
        ("amc", None),
        ("gsm8k", None),
    ]
    batch = collate_fn(rows)
    assert [truth["ground_truth"] for truth in batch["reward_model"]] == ["2"] * 3
    assert list(batch["ability"]) == ["math"] * 3
    assert list(batch["index"]) == [0, 0, 0]
    builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen2")
    for row in rows:
        tokens = builder.build_initial_tokens(row["raw_prompt"])
        assert tokenizer.decode(tokens) == RENDERED[template]
        assert row["extra_info"]["template"] == template
    if template == "none":
        assert tokens == tokenizer.encode(PROBLEM, add_special_tokens=False)
        # verl's probes for what a chat template adds around a turn find nothing, and do not fall over an empty prompt.
        assert initialize_system_prompt(tokenizer) == []


def test_the_setting_for_no_template_passes_hydra_as_documented():
    line = next(line for line in DOCS.read_text().splitlines() if line.startswith("actor_rollout_ref.model.custom"))
    (override,) = shlex.split(line)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[override])
    assert config.actor_rollout_ref.model.custom_chat_template == NO_CHAT_TEMPLATE


def test_verl_takes_the_setting_where_it_loads_the_tokenizer(tokenizer, tmp_path):
    """The dataset and the rollout share the tokenizer of this class: the setting reaches both."""
    from transformers import Qwen2Config
    from verl.workers.config import HFModelConfig

    tokenizer.save_pretrained(tmp_path)
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(tmp_path)
    model = HFModelConfig(path=str(tmp_path), custom_chat_template=NO_CHAT_TEMPLATE)
    assert model.tokenizer.chat_template == NO_CHAT_TEMPLATE


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_page_shows_the_prompt_in_full(template):
    shown = RENDERED[template].rstrip("\n")
    assert f"```\n{shown}\n```" in DOCS.read_text()
