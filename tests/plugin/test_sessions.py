"""Sessions of agents, which verl records as several trajectories: one member of the group each, as for verl's grpo."""

import random

import numpy as np
import pytest
import torch
import verl  # noqa: F401  loads the plugin
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import trainer_base


def advantages(estimator, rows, normalize=True):
    """verl's own function on rows of (uid, session, index, reward, mask): advantages [rows, length]."""
    mask = torch.tensor([row[4] for row in rows])
    rewards = torch.zeros(mask.shape)
    rewards[:, -1] = torch.tensor([row[3] for row in rows])
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": np.array([row[0] for row in rows], dtype=object)},
    )
    data = trainer_base.compute_advantage_for_multi_trajectories(
        data,
        batch_keys=[f"{uid}_{session}_{index}" for uid, session, index, *_ in rows],
        adv_estimator=estimator,
        norm_adv_by_std_in_grpo=normalize,
        config={"norm_adv_by_std_in_grpo": normalize},
    )
    assert torch.equal(data.batch["advantages"], data.batch["returns"])
    return data.batch["advantages"]


def test_a_session_of_eight_trajectories_counts_once():
    # Four sessions of one prompt, rewards 1, 1, 0, 0; the first has eight trajectories. Mean 1/2, std 1/sqrt(3):
    # +-0.5 / 0.57735 = +-0.866. Counted as eleven responses they would be +0.449 and -2.023.
    rows = [("p", 0, index, 1.0, [1, 1, 0]) for index in range(8)]
    rows += [("p", session, 0, reward, [1, 1, 1]) for session, reward in ((1, 1.0), (2, 0.0), (3, 0.0))]
    found = advantages("sspo", rows)
    assert found[:, 0].tolist() == pytest.approx([0.866] * 9 + [-0.866] * 2, abs=5e-4)
    assert (found[:8, 2] == 0).all()
    torch.testing.assert_close(found, advantages("grpo", rows))


@pytest.mark.parametrize("normalize", [True, False])
def test_sessions_are_those_of_verls_grpo(normalize):
    for seed in range(30):
        rng = random.Random(seed)
        rows = [
            # The last trajectory has the highest index, wherever it is in the batch; the other rewards decide nothing.
            (f"a_prompt_{uid}", session, index, rng.gauss(0, 1), [1] + [int(rng.random() < 0.7) for _ in range(4)])
            for uid in range(rng.randint(1, 4))
            for session in range(rng.randint(2, 5))
            for index in range(rng.choice((1, 1, 2, 11)))
        ]
        rng.shuffle(rows)
        ours, grpos = advantages("sspo", rows, normalize), advantages("grpo", rows, normalize)
        assert ours.abs().max() > 0.1
        torch.testing.assert_close(ours, grpos, rtol=1e-4, atol=1e-5)


def test_within_sessions_too_a_group_that_teaches_nothing_gets_exactly_0():
    # verl's grpo gives a group of one its raw reward, and rounds the mean of equal rewards.
    alone = [("p", 0, index, 0.7, [1, 1]) for index in range(3)]
    equal = [("q", session, index, 0.1, [1, 1]) for session in range(3) for index in range(2)]
    assert (advantages("sspo", alone + equal) == 0).all()
    assert (advantages("grpo", alone) != 0).all()


def test_other_estimators_are_left_alone():
    rows = [("p", 0, 0, 1.0, [1, 1]), ("p", 0, 1, 0.0, [1, 1]), ("p", 1, 0, 0.0, [1, 1])]
    by_row = advantages("grpo_vectorized", rows)
    assert by_row[0, 0] > 0 > by_row[1, 0]  # every row for itself, as in verl
    assert torch.equal(advantages("grpo", rows)[0], advantages("grpo", rows)[1])
