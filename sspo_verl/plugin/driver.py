"""SSPO on verl's driver: the advantage estimator, and each step's metrics, warnings and dumps."""

from __future__ import annotations

import contextvars
import functools
import itertools
import weakref
from typing import TYPE_CHECKING

import torch

from sspo_verl.log import say, say_once
from sspo_verl.metrics.guard import report_failure
from sspo_verl.metrics.names import PREFIX
from sspo_verl.names import NAME
from sspo_verl.plugin import thresholds
from sspo_verl.plugin.actor import COUNTS, ROWS, padded
from sspo_verl.plugin.require import require
from sspo_verl.plugin.responses import missing
from sspo_verl.plugin.segmenter import segmenter_on

if TYPE_CHECKING:
    from sspo_verl.metrics.updates import Updates


def advantage_estimator(token_level_rewards, response_mask, index, config=None, **_unused):
    """verl's advantage estimator `sspo`: `advantage.group_advantage` of the summed rewards, on every valid token.

    token_level_rewards, response_mask: [batch, length]. index: the prompt's uid, one per row; rows with equal uids form
    a group. config: algorithm.*, of which norm_adv_by_std_in_grpo is used. Other estimators' arguments are ignored.
    Returns advantages and returns, the same [batch, length], 0 where masked.
    """
    import numpy as np

    from sspo_verl.advantage import group_advantage

    normalize_by_std = True if config is None else config["norm_adv_by_std_in_grpo"]
    say_once(f"advantage estimator sspo (arXiv 2511.04256), norm_adv_by_std_in_grpo={normalize_by_std}")
    _, group_ids = np.unique(np.asarray(index).astype(str), return_inverse=True)
    advantage = group_advantage(
        rewards=token_level_rewards.sum(dim=-1),
        group_ids=torch.as_tensor(group_ids, device=token_level_rewards.device),
        normalize_by_std=normalize_by_std,
    )
    advantages = torch.where(response_mask != 0, advantage[:, None], 0.0)
    return advantages, advantages


_by_session: contextvars.ContextVar[bool] = contextvars.ContextVar("by_session", default=False)


def wrap_sessions(utils) -> None:
    """Patch verl.trainer.ppo.v1.utils: a session recorded as several trajectories is one member of its group. verl
    scores its last trajectory and gives the others the same advantage, but only for its own grpo. `sspo` takes the same
    path under the name grpo, and replaces grpo where the advantage is computed."""
    of_sessions = require(
        utils, "compute_advantage_for_multi_trajectories", ("data", "batch_keys", "adv_estimator", "config")
    )
    of_rows = require(utils, "compute_advantage", ("data", "adv_estimator", "config"))

    @functools.wraps(of_sessions)
    def compute_advantage_for_multi_trajectories(data, batch_keys, adv_estimator, **settings):
        if adv_estimator != NAME:
            return of_sessions(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **settings)
        token = _by_session.set(True)
        try:
            return of_sessions(
                data, batch_keys=batch_keys, adv_estimator=utils.core_algos.AdvantageEstimator.GRPO, **settings
            )
        finally:
            _by_session.reset(token)

    @functools.wraps(of_rows)
    def compute_advantage(data, adv_estimator, **settings):
        return of_rows(data, adv_estimator=NAME if _by_session.get() else adv_estimator, **settings)

    utils.compute_advantage_for_multi_trajectories = compute_advantage_for_multi_trajectories
    utils.compute_advantage = compute_advantage


FAILED = f"{PREFIX}diagnostics_failed"
_report: contextvars.ContextVar[Report | None] = contextvars.ContextVar("report", default=None)


def wrap_reduce_metrics(module) -> None:
    """Patch verl.utils.metric: counts are not numbers that verl can average. They go to the trainer's `Report`; a
    trainer without one (not of the V1 family) gets the metrics of the counts it reduces."""
    reduce_metrics = require(module, "reduce_metrics", ("metrics",))

    @functools.wraps(reduce_metrics)
    def reduce_metrics_but_counts(metrics):
        counts, rows = metrics.pop(COUNTS, None), metrics.pop(ROWS, None)
        reduced, report = reduce_metrics(metrics), _report.get()
        if counts is None:
            return reduced
        if report is not None:
            report.take(_updates(counts.value), [] if rows is None else rows.value)
        else:
            report = Report(None, None, updates=0)
            report.take(_updates(counts.value), [])
            reduced.update(report.finish(0))
        return reduced

    module.reduce_metrics = reduce_metrics_but_counts


def _updates(value) -> Updates:
    """Wrap plain counts as `Updates`: if no ranks were gathered, it is not known which update they belong to."""
    from sspo_verl.metrics.updates import Updates

    return value if isinstance(value, Updates) else Updates(value)


def wrap_trainer(trainer_base) -> None:
    """Patch verl.trainer.ppo.v1.trainer_base: turn a step's counts into metrics and its segments into fields of the
    dumps; pass the batch's entropy thresholds to an update if they are given as shares."""
    trainer = trainer_base.PPOTrainer
    step = require(trainer, "step", ("metrics", "timing_raw"))
    init_tokenizer = require(trainer, "_init_tokenizer", ())
    update_actor = require(trainer, "_update_actor", ("batch", "metrics"))
    dump = require(trainer, "_dump_generations", ("inputs", "outputs", "reward_extra_infos_dict", "dump_path"))
    reports: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by trainer

    def report_of(trainer) -> Report:
        if trainer not in reports:
            from sspo_verl.config import settings_of
            from sspo_verl.plugin.run_settings import Run

            settings = settings_of(trainer.config.actor_rollout_ref.actor.policy_loss)
            run = None if settings is None else Run(trainer.config, settings)
            updates = 0 if run is None else run.updates
            wanted = run.responses if run is not None and run.settings.diagnostics else None
            reports[trainer] = Report(settings, trainer.tokenizer, updates, wanted)
        return reports[trainer]

    @functools.wraps(init_tokenizer)
    def init_tokenizer_with_check(self):
        init_tokenizer(self)
        report_of(self).check_tokenizer()

    @functools.wraps(step)
    def step_with_report(self, metrics, timing_raw):
        report = report_of(self)
        report.begin()
        token = _report.set(report)
        try:
            batch = step(self, metrics, timing_raw)
        finally:
            _report.reset(token)
        metrics.update(report.finish(self.global_steps, batch))
        return batch

    @functools.wraps(update_actor)
    def update_actor_with_thresholds(self, batch, metrics):
        report_of(self).add_thresholds(trainer_base.tq, batch)
        return update_actor(self, batch, metrics)

    @functools.wraps(dump)
    def dump_with_segments(self, inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path):
        extra = reward_extra_infos_dict | report_of(self).dump_fields(reward_extra_infos_dict, outputs)
        return dump(self, inputs, outputs, gts, scores, extra, dump_path)

    trainer.step = step_with_report
    trainer._update_actor = update_actor_with_thresholds
    trainer._init_tokenizer = init_tokenizer_with_check
    trainer._dump_generations = dump_with_segments


class Report:
    """Reports a trainer's steps: metrics, warnings in the log, fields of the dumps. Failures in it are logged, counted
    and otherwise ignored."""

    def __init__(self, settings, tokenizer, updates: int, responses: int | None = None):
        self.settings = settings
        self.tokenizer = tokenizer
        self.updates = updates  # number of actor updates per step
        self.responses = responses  # number that a step should have; None if unknown
        self.failed = 0  # failures since the last step's metrics
        self.begin()

    def check_tokenizer(self) -> None:
        """Raise ValueError, naming the fix, if segments are needed and the segmenter cannot handle the tokenizer."""
        settings = self.settings
        if settings is not None and (settings.loss_mode == NAME or settings.diagnostics):
            self._segmenter()

    def _segmenter(self):
        return segmenter_on(torch.device("cpu"), self.tokenizer, self.settings.segments())

    def begin(self) -> None:
        """Begin a step: discard the data of the last one."""
        self.updates_of: list[Updates] = []  # one per batch of the step
        self.rows: list = []
        self.thresholds: list[dict[str, float]] = []  # one per update, if they are given as shares

    def add_thresholds(self, tq, batch) -> None:
        """Attach the entropy thresholds of a batch to it, for its micro-batches. If that fails, a run that trains
        another loss continues without them."""
        if not thresholds.wanted(self.settings):
            return

        def find() -> dict[str, float]:
            return self._thresholds(tq, batch)

        trains = self.settings.loss_mode == NAME
        found = find() if trains else self._attempt("the entropy thresholds of a batch", find, {})
        if found:
            self.thresholds.append(found)
            batch.extra_info.update({key: found[name] for name, key in thresholds.IN_BATCH.items()})

    def _thresholds(self, tq, batch) -> dict[str, float]:
        """{entropy_low, entropy_high: in nats} of a verl KVBatchMeta. tq: the trainer's TransferQueue client."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        fields = ["responses", "response_mask", "entropy"]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        responses, mask, entropy = (padded(data[name]) for name in fields)
        ids = segmenter_on(responses.device, self.tokenizer, self.settings.segments())(responses, mask, entropy)
        shares = {name: getattr(self.settings, name) for name in thresholds.IN_BATCH}
        found = thresholds.quantiles(entropy, mask, ids, list(shares.values()))
        return dict(zip(shares, found, strict=True))

    def take(self, updates: Updates, rows: list) -> None:
        """Add the actors' counts of the updates on one batch."""
        self.updates_of.append(updates)
        self.rows += rows

    def finish(self, step: int, batch=None) -> dict[str, float]:
        """Return the step's metrics and print its warnings. batch: verl's, with the keys and tags of its rows."""
        row = self._attempt("the step's metrics sspo/*", self._metrics, {})
        row |= self._attempt("counting responses", lambda: missing(batch, self.responses), {})
        if self.settings is not None and self.settings.loss_mode == NAME and row:
            row |= self._attempt("looking for warnings", lambda: self._warn(step, row), {})
        if row or self.failed:
            row[FAILED] = row.get(FAILED, 0.0) + self.failed
        self.failed = 0
        return row

    def _attempt(self, what: str, function, otherwise):
        try:
            return function()
        except Exception as error:
            report_failure(what, error)
            self.failed += 1
            return otherwise

    def _metrics(self) -> dict[str, float]:
        if not self.updates_of:
            return {}
        from sspo_verl.metrics.finalize import metrics

        totals, clipped = zip(*self.updates_of, strict=True)
        # If a step has several batches (separate_async), old_log_prob of all is from the policy before the first.
        in_a_row = list(itertools.chain.from_iterable(clipped))
        return metrics(totals, [in_a_row], self.thresholds)

    def _warn(self, step: int, row: dict[str, float]) -> dict[str, float]:
        for line in self.warner.due(step, row):
            say(f"WARNING at step {step}. {line}")
        return {f"{PREFIX}warning/{name}": float(seen) for name, seen in self.warner.look(row).items()}

    @functools.cached_property
    def warner(self):
        from sspo_verl.metrics.warnings import Warner, signs_of

        signs = signs_of(self.settings)
        names = [sign.threshold for sign in signs.values() if sign.threshold]
        thresholds = {name: getattr(self.settings, name) for name in names}
        if self.updates == 1:
            thresholds["warn_ratio"] = 0.0  # all ratios are 1 then, as the notes before the first rollout say
        return Warner(self.settings.warn_every_steps, thresholds, signs)

    def dump_fields(self, known: dict[str, list], outputs: list[str]) -> dict[str, list]:
        """The extra fields of a dump, if requested. known: verl's fields, with the rows' keys as `uid`."""
        if self.settings is None or not self.settings.dump_segments:
            return {}
        return self._attempt("adding segments to a dump", lambda: self._dump_fields(known["uid"], outputs), {})

    def _dump_fields(self, keys: list[str], outputs: list[str]) -> dict[str, list]:
        from sspo_verl.metrics import dump
        from sspo_verl.segmenters import factory_of

        known, limit = dump.merge(self.rows), self.settings.dump_segments
        cut = None if factory_of(self.settings.segmenter).needs_entropy else self._segmenter()
        return dump.fields(keys, outputs, known, self.tokenizer, cut, limit)
