"""Compatibility matrix: runs SSPO in verl's setups on CPUs, two steps of the quickstart's model each.

    .venv/bin/python scripts/matrix.py                  every setup: two to four minutes each on two cores
    .venv/bin/python scripts/matrix.py 'LoRA' 'bf16'    by name
    .venv/bin/python scripts/matrix.py --list           names and overrides

Prints the table of docs/compatibility.md. Each run has a folder below --runs, with verl's log in attempts/1/verl.log.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sspo_verl.tools.quickstart import start
from sspo_verl.tools.quickstart.ask import main_ppo
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.runs.main_ppo import started

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
POLICY_LOSS = f"{ACTOR}.policy_loss"
CORRECTION = "algorithm.rollout_correction"
LIB = Path(__file__).resolve().parents[1] / "tests" / "lib"
MINUTES = 15  # time limit, after which a run counts as hung
SMALL = (
    "data.train_batch_size=8",
    f"{ROLLOUT}.n=4",
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8",
    f"{ACTOR}.ppo_mini_batch_size=4",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=8",
    f"{ACTOR}.optim.lr=1e-3",  # shows immediately if weights do not reach vLLM
    "trainer.total_training_steps=2",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=2",
)
TWO_RANKS = ("trainer.n_gpus_per_node=2",)
SEPARATE = (  # one rank trains, a separate one samples; verl requires batch = parameter_sync_step x mini-batch
    "trainer.v1.trainer_mode=separate_async",
    "trainer.v1.separate_async.parameter_sync_step=2",
    f"{ROLLOUT}.nnodes=1",
    f"{ROLLOUT}.n_gpus_per_node=1",
    f"{ROLLOUT}.checkpoint_engine.backend=cpu_file",
    "ray_kwargs.ray_init.num_gpus=2",
)
STALENESS = "training/off_policy/trajectory_staleness/mean"
BF16 = "{param_dtype:bf16,reduce_dtype:fp32,buffer_dtype:fp32}"
FLOAT32 = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
ROLLOUT_LOG_PROBS = f"{ROLLOUT}.calculate_log_probs=true"


@dataclass(frozen=True)
class Setup:
    """A setup. algorithms: one run each. logged: metrics that show that the setup took effect, besides the usual ones.
    note: what a reader of its row needs to know."""

    name: str
    overrides: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("sspo",)
    logged: tuple[str, ...] = ()
    note: str = ""


SETUPS = (
    Setup("FSDP2, one rank", algorithms=("sspo", "grpo")),
    Setup("two ranks", TWO_RANKS, algorithms=("sspo", "grpo")),
    Setup(
        "FSDP1 with offload",
        (
            f"{ACTOR}.strategy=fsdp",
            f"{ACTOR}.fsdp_config.param_offload=true",
            f"{ACTOR}.fsdp_config.optimizer_offload=true",
        ),
    ),
    Setup("bf16", (f"{ACTOR}.fsdp_config.mixed_precision={BF16}", f"{ROLLOUT}.dtype=bfloat16")),
    Setup("dynamic batch sizes", (f"{ACTOR}.use_dynamic_bsz=true", f"{ACTOR}.ppo_max_token_len_per_gpu=300")),
    Setup("no padding in the model", ("actor_rollout_ref.model.use_remove_padding=true",)),
    Setup(
        "Ulysses over two ranks",
        (*TWO_RANKS, f"{ACTOR}.ulysses_sequence_parallel_size=2", "actor_rollout_ref.model.use_remove_padding=true"),
        note="verl exchanges heads in flash attention alone, which no CPU has: a rank attends to its own half",
    ),
    Setup(
        "vLLM with TP=2",
        (
            *TWO_RANKS,
            f"{ROLLOUT}.tensor_model_parallel_size=2",
            f"{ROLLOUT}.engine_kwargs.vllm.distributed_executor_backend=null",
        ),
    ),
    Setup(
        "KL loss against a reference",
        (
            f"{ACTOR}.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
            f"+actor_rollout_ref.ref.fsdp_config.mixed_precision={FLOAT32}",
        ),
        logged=("actor/kl_loss",),
    ),
    Setup("entropy bonus", (f"{ACTOR}.entropy_coeff=0.01",), logged=("actor/entropy_loss",)),
    Setup("current entropy", (f"{POLICY_LOSS}.entropy_source=current",)),
    Setup(
        "correction by token",
        (ROLLOUT_LOG_PROBS, f"{CORRECTION}.rollout_is=token"),
        logged=("rollout_corr/rollout_is_mean",),
    ),
    Setup(
        "correction and rejection by sequence",
        (
            ROLLOUT_LOG_PROBS,
            f"{CORRECTION}.rollout_is=sequence",
            f"{CORRECTION}.rollout_rs=seq_mean_k1",
            f"{CORRECTION}.rollout_rs_threshold=0.5_2.0",
        ),
        logged=("rollout_corr/rollout_is_mean",),
    ),
    Setup(
        "sampler's log probabilities as old ones",
        (ROLLOUT_LOG_PROBS, f"{CORRECTION}.bypass_mode=true", f"{POLICY_LOSS}.entropy_source=current"),
    ),
    Setup("LoRA of rank 8", ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=16")),
    Setup("colocate_async", ("trainer.v1.trainer_mode=colocate_async",), note="sampled with weights of a step before"),
    Setup(
        "separate_async",
        SEPARATE,
        algorithms=("sspo", "grpo"),
        logged=(STALENESS,),
        note="sampled with weights of a step before",
    ),
    Setup(
        "separate_async, nothing sampled ahead",
        (*SEPARATE, "trainer.v1.separate_async.num_warmup_batches=0"),
        algorithms=("sspo", "grpo"),
        logged=(STALENESS,),
    ),
    *(
        Setup(f"segmenter {name}", (f"{POLICY_LOSS}.segmenter={name}", *settings))
        for name, settings in (
            ("sentence", ()),
            ("fixed", (f"{POLICY_LOSS}.segment_tokens=8",)),
            ("entropy", (f"{POLICY_LOSS}.segment_entropy_share=0.15",)),
            ("regex", (f"{POLICY_LOSS}.segment_regex='[+=]'",)),
            ("token", ()),
            ("response", (f"{POLICY_LOSS}.segment_max_tokens=16",)),
        )
    ),
    Setup("band by length", (f"{POLICY_LOSS}.clip_length_exponent=-0.5",)),
    Setup("product with a cap", (f"{POLICY_LOSS}.ratio_length_exponent=1", f"{POLICY_LOSS}.ratio_cap=5")),
    Setup("total variation", (f"{POLICY_LOSS}.clip_statistic=tv", f"{POLICY_LOSS}.clip_divergence=0.15")),
    Setup("binary KL", (f"{POLICY_LOSS}.clip_statistic=binary_kl", f"{POLICY_LOSS}.clip_divergence=0.05")),
    Setup(
        "thresholds by share",
        (
            f"{POLICY_LOSS}.entropy_thresholds=quantile",
            f"{POLICY_LOSS}.entropy_low=0.25",
            f"{POLICY_LOSS}.entropy_high=0.75",
        ),
        logged=("sspo/entropy_threshold/low", "sspo/entropy_threshold/high"),
    ),
    Setup(
        "two turns with a tool",
        (
            f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
            f"{ROLLOUT}.multi_turn.enable=true",
            f"{ROLLOUT}.multi_turn.format=lines",
            f"{ROLLOUT}.multi_turn.max_assistant_turns=2",
            f"{ROLLOUT}.multi_turn.function_tool_path={LIB}/tool_of_lines.py",
            f"reward.custom_reward_function.path={LIB}/share_of_digits.py",
            f"{ROLLOUT}.max_model_len=128",
            "data.max_response_length=96",
        ),
        algorithms=("sspo", "sspo_turn"),
        logged=("num_turns/mean",),
    ),
)


@dataclass(frozen=True)
class Outcome:
    exit_code: int | None  # None: it hung
    steps: dict[int, dict]
    said: str  # the last error in the log


def run(setup: Setup, algorithm: str, runs: Path) -> Outcome:
    """Run to completion. runs: the folder of all runs, with the quickstart's start in it."""
    folder = RunDir(runs / re.sub(r"\W+", "-", f"{setup.name} {algorithm}"))
    shutil.rmtree(folder.path, ignore_errors=True)
    job = main_ppo(folder, runs / "start", algorithm, "cpu", (*SMALL, *setup.overrides))
    with started(job, folder) as attempt:
        code = attempt.wait(60 * MINUTES)
    errors = re.findall(r"^\S*(?:Error|Exception): .*", attempt.log.read_text(errors="replace"), re.MULTILINE)
    return Outcome(code, folder.rows(), errors[-1] if errors and code else "")


def row(setup: Setup, algorithm: str, found: Outcome) -> str:
    last = found.steps.get(2, {})

    def value(name: str) -> str:
        return f"{last[name]:.3g}" if isinstance(last.get(name), int | float) else "-"

    ended = "hung" if found.exit_code is None else f"exit {found.exit_code}" if found.exit_code else "trains"
    more = ", ".join(f"`{name}` {value(name)}" for name in setup.logged)
    cells = (
        setup.name,
        f"`{algorithm}`",
        ended,
        value("actor/grad_norm"),
        value("sspo/segments_per_response"),
        value("sspo/token_clipfrac/all"),
        value("training/rollout_probs_diff_mean"),
        "; ".join(filter(None, (more, found.said[:120], setup.note))),
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of setups")
    parser.add_argument("--list", action="store_true", help="print the setups, and run nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/matrix"))
    options = parser.parse_args()
    names = [each.name for each in SETUPS]
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no setup is called {unknown[0]!r}; there are: {', '.join(names)}")
    chosen = [each for each in SETUPS if not options.names or each.name in options.names]
    if options.list:
        print("\n".join(f"{each.name}: {' '.join(each.overrides)}" for each in chosen))
        return 0
    options.runs.mkdir(parents=True, exist_ok=True)
    runs = options.runs.resolve()
    start.read_if_current(runs / "start") or start.make(runs / "start")
    print("| set-up | `algorithm=` | | gradient norm | segments | clipped | vLLM's p - actor's | |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = 0
    for setup in chosen:
        for algorithm in setup.algorithms:
            found = run(setup, algorithm, runs)
            failed += found.exit_code != 0
            print(row(setup, algorithm, found), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
