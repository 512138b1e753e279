"""`group_advantage` against the scalar reference, hand calculation and verl's own grpo."""

import math
import random

import pytest
import reference
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from sspo_verl.advantage import group_advantage


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_rewards_of_integers_are_not_cut_off(dtype):
    rewards, groups = torch.tensor([0, 1, 1, 0, 1]), torch.zeros(5, dtype=torch.int64)
    found = group_advantage(rewards.to(dtype), groups)
    assert found.dtype == torch.float32
    assert torch.equal(found, group_advantage(rewards.float(), groups))
    assert found.tolist() == pytest.approx([-1.0954, 0.7303, 0.7303, -1.0954, 0.7303], abs=1e-4)


def random_groups(seed):
    """Rewards and group ids: groups of 1 to 9 rows, shuffled, some with equal rewards, ids anything."""
    rng = random.Random(seed)
    rewards, groups = [], []
    for _ in range(rng.randint(1, 12)):
        name = rng.choice((rng.randint(-5, 5), rng.randint(-(2**62), 2**62)))
        kind = rng.choice(("binary", "normal", "far", "equal"))
        level, far = rng.uniform(-2, 2), rng.uniform(-1e6, 1e6)
        for _ in range(rng.randint(1, 9)):
            reward = {
                "binary": float(rng.random() < 0.5),
                "normal": rng.gauss(0, 1),
                "far": far + rng.gauss(0, 1),
                "equal": level,
            }[kind]
            rewards.append(reward)
            groups.append(name)
    order = rng.sample(range(len(rewards)), len(rewards))
    return [rewards[i] for i in order], [groups[i] for i in order]


def test_golden():
    # Group 7: rewards 1, 0, 0, 1: mean 1/2, deviations +-1/2, std = sqrt(4 * 1/4 / 3) = 1/sqrt(3) = 0.577350.
    #   A = +-0.5 / (0.577350 + 0.000001) = +-0.8660239 (without the epsilon it would be 0.8660254).
    # Group 3: rewards 2, 5: mean 3.5, std = sqrt((1.5^2 + 1.5^2) / 1) = 2.121320; A = +-1.5/2.121321 = +-0.7071064.
    # Group 0: one response: 0.
    rewards, groups = float64([1, 2, 0, 9, 0, 5, 1]), torch.tensor([7, 3, 7, 0, 7, 3, 7])
    half = 0.5 / (1 / math.sqrt(3) + 1e-6)
    pair = 1.5 / (math.sqrt(4.5) + 1e-6)
    assert round(half, 7) == 0.8660239
    assert round(pair, 7) == 0.7071064
    expected = float64([half, -pair, -half, 0, -half, pair, half])
    torch.testing.assert_close(group_advantage(rewards, groups), expected, rtol=1e-12, atol=1e-12)
    # Without the division: the deviations.
    plain = group_advantage(rewards, groups, normalize_by_std=False)
    torch.testing.assert_close(plain, float64([0.5, -1.5, -0.5, 0, -0.5, 1.5, 0.5]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_random_groups_match_the_reference(seed, normalize):
    rewards, groups = random_groups(seed)
    result = group_advantage(float64(rewards), torch.tensor(groups), normalize_by_std=normalize)
    expected = float64(reference.group_advantage(rewards, groups, normalize))
    # Rewards near 1e6 have lost 6 of float64's 16 digits before anything is computed.
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_group_of_equal_rewards_or_of_one_gets_exactly_0(normalize):
    # 0.1 is not a binary fraction: a sum of n of them divided by n is often not 0.1, and 1e-17/(0 + 1e-6) is not 0.
    for dtype in (torch.float32, torch.float64):
        for reward in (0.1, -0.7, 1 / 3, 1e6 + 0.1, 1e-30, 0.0, 1.0):
            for size in (1, 2, 3, 6, 7, 10, 11, 49):
                # A second group, with unequal rewards, is between the rows.
                rewards = torch.tensor([reward, 0.0, reward, 1.0] + [reward] * (size - 1), dtype=dtype)[: size + 3]
                groups = torch.tensor([4, 9, 4, 9] + [4] * (size - 1))[: size + 3]
                if size == 1:
                    rewards, groups = rewards[[0, 1, 3]], groups[[0, 1, 3]]
                equal = groups == 4
                result = group_advantage(rewards, groups, normalize_by_std=normalize)
                assert (result[equal] == 0).all(), f"{size} times {reward} in {dtype}: {result[equal].tolist()}"
                assert (result[~equal] != 0).all()


def test_the_division_is_the_default():
    rewards, groups = float64([0.0, 4.0]), torch.tensor([0, 0])
    assert torch.equal(group_advantage(rewards, groups), group_advantage(rewards, groups, normalize_by_std=True))
    assert not torch.equal(group_advantage(rewards, groups), group_advantage(rewards, groups, normalize_by_std=False))


@pytest.mark.parametrize("normalize", [True, False])
def test_same_as_grpo_of_verl(normalize):
    # verl's grpo gives a group of one its raw reward, and rounds the mean of equal rewards: neither is in here.
    rng = random.Random(0)
    groups = [g for g in range(20) for _ in range(rng.randint(2, 8))]
    rng.shuffle(groups)
    rewards = float64([rng.gauss(0, 1) for _ in groups])
    mask = torch.ones(len(groups), 3, dtype=torch.float64)
    token_level_rewards = torch.nn.functional.pad(rewards[:, None], (2, 0))
    expected, _ = compute_grpo_outcome_advantage(token_level_rewards, mask, groups, norm_adv_by_std_in_grpo=normalize)
    result = group_advantage(rewards, torch.tensor(groups), normalize_by_std=normalize)
    torch.testing.assert_close(result[:, None].expand(-1, 3), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_are_refused(bad):
    for size in (1, 2, 5):
        for dtype in (torch.float32, torch.float64):
            rewards = torch.zeros(size, dtype=dtype)
            rewards[-1] = bad
            with pytest.raises(ValueError, match="finite"):
                group_advantage(rewards, torch.arange(size))


def test_float32_rewards_are_as_exact_as_float32_can_be():
    for seed in range(50):
        rewards, groups = random_groups(seed)
        rewards = torch.tensor(rewards, dtype=torch.float32)
        result = group_advantage(rewards, torch.tensor(groups))
        assert result.dtype == torch.float32
        # The reference gets the same rounded rewards. Near 1e6 a float32 is a multiple of 1/16: the values are
        # coarse, but exact, and so must be their differences.
        expected = float64(reference.group_advantage(rewards.tolist(), groups))
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_largest_float32_rewards_give_finite_advantages():
    # max - (-max) is inf in float32; the advantage itself is an ordinary number: 1/sqrt(2).
    top = torch.finfo(torch.float32).max
    result = group_advantage(torch.tensor([top, -top]), torch.tensor([0, 0]))
    torch.testing.assert_close(result, torch.tensor([math.sqrt(0.5), -math.sqrt(0.5)]), rtol=1e-6, atol=0)


def test_rows_in_another_order_and_other_groups_change_no_bit():
    for seed in range(30):
        rewards, groups = random_groups(seed)
        rewards, groups = float64(rewards), torch.tensor(groups)
        result = group_advantage(rewards, groups)
        # Groups change places, the rows of each stay in order: the same bits.
        _, names = torch.unique(groups, return_inverse=True)
        by_name = torch.argsort(-names, stable=True)
        assert torch.equal(group_advantage(rewards[by_name], groups[by_name]), result[by_name])
        # Each group alone: the same bits.
        for name in groups.unique():
            rows = groups == name
            assert torch.equal(group_advantage(rewards[rows], groups[rows]), result[rows])
        # Rows of a group in another order: another order of summation, so the same up to its rounding.
        order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
        shuffled = group_advantage(rewards[order], groups[order])
        torch.testing.assert_close(shuffled, result[order], rtol=1e-8, atol=1e-9)


def test_an_empty_batch():
    result = group_advantage(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert result.shape == (0,)


def test_inputs_are_not_mutated():
    for seed in range(5):
        rewards, groups = random_groups(seed)
        rewards, groups = float64(rewards), torch.tensor(groups)
        before, versions = (rewards.clone(), groups.clone()), (rewards._version, groups._version)
        group_advantage(rewards, groups).fill_(7)
        assert torch.equal(rewards, before[0])
        assert torch.equal(groups, before[1])
        assert (rewards._version, groups._version) == versions
