"""SSPO (arXiv 2511.04256) in a training loop of one's own, without verl: python examples/own_loop.py

A policy that is a table of logits learns to count in lines, "1\\n2\\n3\\n4\\n". Seconds on a CPU.
"""

import torch

from sspo_verl.advantage import group_advantage
from sspo_verl.entropy import token_entropy
from sspo_verl.loss import sspo_token_loss
from sspo_verl.segments import line_break_table, segment_ids

WORDS = ["1", "2", "3", "4", "\n"]
WANTED = torch.tensor([0, 4, 1, 4, 2, 4, 3, 4])
RESPONSES, LENGTH, STEPS, UPDATES = 256, len(WANTED), 30, 2
SETTINGS = {
    "clip_low": 0.7,
    "clip_high": 1.3,
    "clip_low_tight": 0.8,
    "alpha": 0.3,
    "entropy_low": 0.5,
    "entropy_high": 1.0,
    "entropy_clip": True,
}


class Tokenizer:  # a tokenizer of Hugging Face's in its place will do
    all_special_ids = ()

    def __len__(self):
        return len(WORDS)

    def decode(self, ids):
        return "".join(WORDS[i] for i in ids)


def log_probs(policy, tokens):
    return policy.log_softmax(-1).expand(RESPONSES, -1, -1).gather(2, tokens[:, :, None])[:, :, 0]


def main() -> list[float]:
    """The mean reward of each step."""
    torch.manual_seed(0)
    policy = torch.zeros(LENGTH, len(WORDS), requires_grad=True)  # logits of each place
    optimizer = torch.optim.Adam([policy], lr=0.1)
    table = line_break_table(Tokenizer())  # once per tokenizer
    history = []
    for _ in range(STEPS):
        # Rollout: one prompt, so all responses are one group; every token counts.
        tokens = torch.multinomial(policy.detach().softmax(-1), RESPONSES, replacement=True).T
        rewards = (tokens == WANTED).float().mean(dim=1)
        history.append(rewards.mean().item())

        mask = torch.ones_like(tokens)
        ids = segment_ids(tokens, mask, table)
        advantages = group_advantage(rewards, torch.zeros_like(tokens[:, 0]))[:, None].expand_as(tokens)
        old_log_prob, entropy = log_probs(policy, tokens).detach(), token_entropy(policy).expand_as(tokens)
        for _ in range(UPDATES):
            loss = sspo_token_loss(
                old_log_prob=old_log_prob,
                log_prob=log_probs(policy, tokens),
                advantages=advantages,
                response_mask=mask,
                segment_ids=ids,
                entropy=entropy,
                **SETTINGS,
            )
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
    return history


if __name__ == "__main__":
    history = main()
    print(f"mean reward: {history[0]:.2f} at first, {history[-1]:.2f} after {STEPS} steps")
