"""Registers the plugin with verl: every hook into verl's trainer and workers is in this table.

verl imports this module (through `load`) at the end of `import verl`, in the driver and in every Ray worker.
Importing it must be cheap, so each of verl's modules is extended when it is itself imported:

| verl's module | what is added or wrapped, and why | by |
|---|---|---|
| `verl.trainer.ppo.core_algos` | policy loss and advantage estimator `sspo` | this module |
| `verl.workers.utils.losses` | `ppo_loss`: verl passes only log-probs to a policy loss, SSPO needs tokens | `actor` |
| | `get_policy_loss_fn`: runs the diagnostics after every policy loss | `actor` |
| `verl.utils.torch_functional` | `allgather_dict_into_dict`: combines the ranks' counts into one record on | |
| | one rank, where verl would give every rank a copy of all | `actor` |
| `verl.workers.engine.fsdp.transformer_impl` | `FSDPEngineWithLMHead.prepare_model_outputs` and the | |
| | `logprobs_from_logits` in it: entropy without gradient, for `entropy_source=current` | `engine` |
| `verl.utils.config` | `validate_config`: invalid settings stop the driver early; if main_ppo is the program, also | |
| | checks data, reward and checkpoints of an SSPO run | `check_run` |
| `verl.trainer.main_ppo` | `run_ppo`: the same for programs that import it (fully_async, one_step_off, a script), | |
| | before it starts Ray | `check_run` |
| `verl.utils.metric` | `reduce_metrics`: the actors' counts are not numbers to average | `driver` |
| `verl.trainer.ppo.v1.utils` | `compute_advantage_for_multi_trajectories` and the `compute_advantage` in it: | |
| | a session of several trajectories is one member of its group, as for grpo | `driver` |
| `verl.trainer.ppo.v1.trainer_base` | `PPOTrainer.step`: the metrics of a step | `driver` |
| | `PPOTrainer._update_actor`: quantile thresholds of the complete batch (`thresholds`) | `driver` |
| | `PPOTrainer._init_tokenizer`: refuses a vocabulary without line breaks, before workers start | `driver` |
| | `PPOTrainer._dump_generations`: fields of the rollout dumps | `driver` |
| | `PPOTrainer._compute_metrics`: what the reward could not read, from `extra_fields` in | `reward_metrics` |
| | `tq` (its TransferQueue client), if the reward is ours | |
| `transfer_queue.utils.zmq_utils` | `create_zmq_socket`, `get_node_ip_address`: authenticated sockets, and on | |
| | one node the loopback address, if SSPO_QUEUE_SECRET and _ADDRESS are set | `queue` |
"""

from sspo_verl.names import NAME
from sspo_verl.plugin import actor, check_run, cpu, driver, engine, queue, reward_metrics
from sspo_verl.plugin.hook import after_import
from sspo_verl.plugin.require import require

OURS = (actor.__name__, driver.__name__)


def register_algorithm(core_algos) -> None:
    """Register policy loss and advantage estimator `sspo` in verl.trainer.ppo.core_algos."""
    register_policy_loss = require(core_algos, "register_policy_loss", ("name",))
    register_adv_est = require(core_algos, "register_adv_est", ("name_or_enum",))
    require(core_algos, "agg_loss", ("loss_mat", "loss_mask", "loss_agg_mode", "dp_size", "batch_num_tokens"))
    for registry in (core_algos.POLICY_LOSS_REGISTRY, core_algos.ADV_ESTIMATOR_REGISTRY):
        if NAME in registry and registry[NAME].__module__ not in OURS:
            raise RuntimeError(
                f'The name "{NAME}" is taken by {registry[NAME].__module__}. Two plugins claim it; uninstall one, or '
                "choose with VERL_USE_EXTERNAL_PLUGINS=sspo_verl."
            )
    register_policy_loss(NAME)(actor.policy_loss)
    register_adv_est(NAME)(driver.advantage_estimator)


def _extend_losses(losses) -> None:
    actor.wrap_ppo_loss(losses)
    actor.wrap_get_policy_loss_fn(losses)


def _install() -> None:
    after_import("verl.trainer.ppo.core_algos", register_algorithm)
    after_import("verl.workers.utils.losses", _extend_losses)
    after_import("verl.utils.torch_functional", actor.wrap_allgather_dict_into_dict)
    after_import("verl.workers.engine.fsdp.transformer_impl", engine.wrap_fsdp_engine)
    after_import("verl.utils.config", check_run.wrap_validate_config)
    after_import("verl.trainer.main_ppo", check_run.wrap_run_ppo)
    after_import("verl.utils.metric", driver.wrap_reduce_metrics)
    after_import("verl.trainer.ppo.v1.utils", driver.wrap_sessions)
    after_import("verl.trainer.ppo.v1.trainer_base", driver.wrap_trainer)
    after_import("verl.trainer.ppo.v1.trainer_base", reward_metrics.wrap_compute_metrics)
    after_import("transfer_queue.utils.zmq_utils", queue.wrap_sockets)
    cpu.activate_if_no_accelerator()


_install()
