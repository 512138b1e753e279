"""Estimate of a recipe's GPU hours, from its own numbers: python benchmarks/gpu_hours.py [RECIPE ...] [KEY=VALUE]

A derivation, not a measurement. Its assumptions are at the top; everything else is read from the composed recipe.

  sampling   a decoding step reads the weights once and the keys and values of every unfinished response: memory-bound.
             As one response of a batch nearly always reaches the limit, there are max_response_length steps.
  log-probs  one forward pass over all tokens, for old_log_prob.
  training   four: forward, again forward (gradient checkpointing), and backward, which is twice a forward.
  forward    2 x parameters per token, and attention over the complete packed micro-batch (torch's sdpa skips nothing).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from sspo_verl.tools.runs.recipe import composed

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

# Assumptions
RESPONSE_TOKENS = 800  # the mean; --response-tokens
PROMPT_TOKENS = 116  # the mean of MATH, levels 3 to 5, in Qwen's vocabulary with the template qwen-boxed
COMPUTE_SHARE = 0.35  # of the GPU's peak, in log-probs and training
BANDWIDTH_SHARE = 0.4  # of the GPU's peak, in sampling
OTHER_SECONDS = 10.0  # per step: reward, moving tensors, syncing weights to vLLM
VALIDATION_PROBLEMS = 1560 - 2  # of the five sets; two are longer than max_prompt_length
RUNS = 4 * 3  # algorithms, seeds


@dataclass(frozen=True)
class GPU:
    """A GPU, from NVIDIA's data sheets: dense bfloat16 FLOP/s, bytes/s."""

    name: str
    flops: float
    bandwidth: float


GPUS = (GPU("A100 80 GB SXM", 312e12, 2.04e12), GPU("H100 80 GB SXM", 989e12, 3.35e12))


@dataclass(frozen=True)
class Model:
    """Sizes from the models' config.json."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    tied: bool  # one matrix for embedding and head
    vocabulary: int = 151936

    @property
    def kv_width(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def multiplied(self) -> int:
        """Parameters that every token is multiplied with: all except the embedding."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Number of parameters, without biases and norms."""
        return self.multiplied + (0 if self.tied else self.vocabulary * self.hidden)

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values, in bfloat16."""
        return self.layers * 2 * self.kv_width * 2


MODELS = {
    "Qwen2.5-Math-1.5B": Model(layers=28, hidden=1536, intermediate=8960, heads=12, kv_heads=2, tied=True),
    "Qwen2.5-Math-7B": Model(layers=28, hidden=3584, intermediate=18944, heads=28, kv_heads=4, tied=False),
}


@dataclass(frozen=True)
class Cost:
    """Seconds per step on all GPUs, and hours of the run."""

    sampling: float
    log_probs: float
    training: float
    validation: float  # once
    steps: int
    validations: int
    gpus: int

    @property
    def step(self) -> float:
        return self.sampling + self.log_probs + self.training + OTHER_SECONDS

    @property
    def hours(self) -> float:
        return (self.steps * self.step + self.validations * self.validation) / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus


def sampling_seconds(model: Model, gpu: GPU, responses: float, tokens: int, limit: int, tensor_parallel: int) -> float:
    """Seconds per token of one replica that generates this many responses at once."""
    weights = limit * 2 * model.parameters
    keys_and_values = responses * tokens * (PROMPT_TOKENS + tokens / 2) * model.kv_bytes
    return (weights + keys_and_values) / (tensor_parallel * gpu.bandwidth * BANDWIDTH_SHARE)


def forward_flops(model: Model, micro_batch_tokens: int) -> float:
    """FLOPs per token of a forward pass."""
    return 2 * model.multiplied + 4 * model.layers * model.hidden * micro_batch_tokens


def cost(config: DictConfig, model: Model, gpu: GPU, tokens: int) -> Cost:
    trainer, data, rollout, actor = (
        config.trainer,
        config.data,
        config.actor_rollout_ref.rollout,
        config.actor_rollout_ref.actor,
    )
    gpus = trainer.nnodes * trainer.n_gpus_per_node
    tensor_parallel = rollout.tensor_model_parallel_size
    replicas = gpus // tensor_parallel
    limit = data.max_response_length

    def sampling(responses: int) -> float:
        return sampling_seconds(model, gpu, responses / replicas, tokens, limit, tensor_parallel)

    responses = data.train_batch_size * rollout.n
    all_tokens = responses * (PROMPT_TOKENS + tokens)
    flops = all_tokens * forward_flops(model, actor.ppo_max_token_len_per_gpu)
    rate = gpus * gpu.flops * COMPUTE_SHARE
    passes = 3 + int(config.actor_rollout_ref.model.enable_gradient_checkpointing)
    return Cost(
        sampling=sampling(responses),
        log_probs=flops / rate,
        training=passes * actor.ppo_epochs * flops / rate,
        validation=sampling(VALIDATION_PROBLEMS * rollout.val_kwargs.n),
        steps=trainer.total_training_steps,
        validations=trainer.total_training_steps // trainer.test_freq + int(trainer.val_before_train),
        gpus=gpus,
    )


def table(recipes: list[str], overrides: list[str], tokens: int) -> str:
    lines = [
        "| recipe | GPUs | sampling | log-probs | training | other | a step | a run | GPU hours | of all 12 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        config = composed(RECIPES, recipe, overrides)
        model = MODELS[Path(config.actor_rollout_ref.model.path).name]
        for gpu in GPUS:
            c = cost(config, model, gpu, tokens)
            parts = (c.sampling, c.log_probs, c.training, OTHER_SECONDS, c.step)
            seconds = " | ".join(f"{value:.0f} s" for value in parts)
            lines.append(
                f"| {recipe} | {c.gpus} {gpu.name} | {seconds} | {c.hours:.1f} h | {c.gpu_hours:.0f} "
                f"| {RUNS * c.gpu_hours:,.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate of a recipe's GPU hours.")
    parser.add_argument("arguments", nargs="*", help="recipes and Hydra overrides (KEY=VALUE)")
    parser.add_argument("--response-tokens", type=int, default=RESPONSE_TOKENS)
    asked = parser.parse_args()
    recipes = [a for a in asked.arguments if "=" not in a] or ["qwen2_5_math_1_5b", "qwen2_5_math_7b"]
    print(table(recipes, [a for a in asked.arguments if "=" in a], asked.response_tokens))


if __name__ == "__main__":
    main()
