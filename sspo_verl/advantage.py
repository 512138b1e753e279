"""Group-relative advantage (arXiv 2511.04256, after GRPO, arXiv 2402.03300)."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sspo_verl.derivatives import segment_mean

# Keeps the division finite; same value as verl's grpo.
EPSILON = 1e-6


@torch.no_grad()
def group_advantage(
    rewards: Shaped[Tensor, " batch"],
    group_ids: Shaped[Tensor, " batch"],
    normalize_by_std: bool = True,
) -> Float[Tensor, " batch"]:
    """Group-relative advantage: how much better a response is than the other responses to its prompt.

        A_i = (R_i - mean(R of the group)) / (std(R of the group) + EPSILON)

    rewards: R, one per response, in any unit; integers and booleans are converted to float32. group_ids: equal for
    responses to the same prompt; any integers, in any order. normalize_by_std: False skips the division (Dr. GRPO,
    arXiv 2503.20783).

    Returns A, in standard deviations (or in the reward's unit without the division). std is the unbiased estimate.
    A group whose rewards are all equal, or a group of one, gets exactly 0.
    Raises ValueError if a reward is not finite.
    """
    if not rewards.is_floating_point():
        rewards = rewards.float()
    if not torch.isfinite(rewards).all():
        rows = torch.nonzero(~torch.isfinite(rewards)).flatten().tolist()
        raise ValueError(
            f"The reward of response(s) {rows[:10]} is not finite ({rewards[rows[0]]}); a single one would turn "
            "every advantage of its group into NaN. Fix the reward function "
            "(reward.custom_reward_function.path)."
        )
    # Once sorted, the groups are the segments of one long row.
    order = torch.argsort(group_ids, stable=True)
    _, group, sizes = torch.unique_consecutive(group_ids[order], return_inverse=True, return_counts=True)
    size = sizes[group]
    # Relative to the group's first reward, equal rewards are exactly 0, and so are their advantages.
    first = (sizes.cumsum(0) - sizes)[group]
    relative = rewards[order].double() - rewards[order][first].double()

    deviation = relative - segment_mean(relative[None], group[None])[0]
    if normalize_by_std:
        variance = segment_mean(deviation[None] ** 2, group[None])[0] * size / (size - 1).clamp(min=1)
        deviation = deviation / (variance.sqrt() + EPSILON)
    return torch.empty_like(rewards).scatter_(0, order, deviation.to(rewards.dtype))
