"""verl's replay buffer, polling for finished rollouts every 0.1 s instead of every 2 s.

With a model this small a step takes seconds, and verl's polling interval would be most of it.
"""

from __future__ import annotations

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

POLL_SECONDS = 0.1


class FastReplayBuffer(ReplayBuffer):
    def __init__(self, **kwargs):
        super().__init__(poll_interval=POLL_SECONDS, **kwargs)
