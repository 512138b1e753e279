"""verl's own micro-batches and actor configs, as the actor's engine hands them to `ppo_loss`."""

from types import SimpleNamespace

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, PolicyLossConfig

PROMPT_LENGTH = 3


class ByteTokenizer:
    """One token per byte, as many as the tests need of a tokenizer; the last one ends a response."""

    all_special_ids = (256,)

    def __len__(self):
        return 257

    def decode(self, ids):
        return "".join(chr(i) if i < 256 else "" for i in ids)


def actor_config(policy_loss: PolicyLossConfig, **settings) -> FSDPActorConfig:
    config = FSDPActorConfig(
        rollout_n=2,
        ppo_micro_batch_size_per_gpu=4,
        loss_agg_mode="seq-mean-token-mean",
        policy_loss=policy_loss,
        **settings,
    )
    config.model_config = SimpleNamespace(tokenizer=TOKENIZER)
    return config


TOKENIZER = ByteTokenizer()
TEXTS = ("ab\nc\n\nd\x00", "no line break", "x\ny\nz\n", "\n\n q\n")


def responses(seed: int, texts=TEXTS) -> dict[str, list[torch.Tensor]]:
    """Per response of `texts`: ids, log-probs under both policies, entropies, advantages, mask; all 1-D."""
    g = torch.Generator().manual_seed(seed)
    out = {"responses": [torch.tensor([*text.encode(), 256]) for text in texts]}
    for key, scale in (("log_prob", 1.0), ("old_log_prob", 1.0), ("entropy", 2.0)):
        out[key] = [
            scale * torch.rand(len(ids), generator=g) * (1 if key == "entropy" else -1) for ids in out["responses"]
        ]
    out["advantages"] = [torch.randn(1, generator=g).expand(len(ids)).contiguous() for ids in out["responses"]]
    out["response_mask"] = [torch.ones(len(ids), dtype=torch.int64) for ids in out["responses"]]
    out["response_mask"][1][3:5] = 0
    return out


def micro_batch(rows: dict[str, list[torch.Tensor]], pick: list[int], dp_size: int = 1) -> tuple[TensorDict, dict]:
    """(data, model_output) of the rows `pick`, normalized by all of `rows`. model_output["log_probs"] requires grad."""
    nested = tu.nested_tensor_from_tensor_list

    def full(key):
        # verl's model output covers prompt and response, shifted left by one token.
        parts = []
        for i in pick:
            values = rows[key][i]
            parts.append(torch.cat([torch.zeros(PROMPT_LENGTH - 1), values, torch.zeros(1)]))
        return nested(parts)

    data = TensorDict(
        {
            "prompts": nested([torch.full((PROMPT_LENGTH,), 65) for _ in pick]),
            "responses": nested([rows["responses"][i] for i in pick]),
            "response_mask": nested([rows["response_mask"][i] for i in pick]),
            "old_log_probs": nested([rows["old_log_prob"][i] for i in pick]),
            "advantages": nested([rows["advantages"][i] for i in pick]),
            "entropy": nested([rows["entropy"][i] for i in pick]),
        },
        batch_size=len(pick),
    )
    tu.assign_non_tensor(
        data,
        dp_size=dp_size,
        batch_num_tokens=int(sum(mask.sum() for mask in rows["response_mask"])),
        global_batch_size=len(rows["responses"]),
    )
    log_probs = full("log_prob").detach().requires_grad_()
    return data, {"log_probs": log_probs, "entropy": full("entropy")}


def padded(rows: list[torch.Tensor], length: int | None = None) -> torch.Tensor:
    """[batch, length], padded with 0."""
    length = length or max(len(row) for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, length - len(row))) for row in rows])
