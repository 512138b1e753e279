"""Small Qwen2 in plain torch: log-probabilities for training and a batch sampler with a KV cache.

Same weights, names and results as transformers' Qwen2ForCausalLM (tests/study/test_model.py), at a fraction of its time
for models this small. All prompts of a batch have the same length, so there is no left padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

HEAD_DIM = 32
EPSILON = 1e-6  # of the norms
ROPE_BASE = 10_000
LONGEST = 512  # positions
ENDINGS = (
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *(f"self_attn.{x}_proj.{part}" for x in "qkv" for part in ("weight", "bias")),
    "self_attn.o_proj.weight",
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. 64 wide, 3 layers: 0.18 million parameters with a vocabulary of bytes."""

    width: int = 64
    layers: int = 3
    vocabulary: int = 259

    @property
    def inner(self) -> int:
        return 3 * self.width


class Samples(NamedTuple):
    """Responses, [batch, length] each."""

    tokens: Tensor  # int64; the end token is the last one that counts
    mask: Tensor  # bool: the token counts
    entropy: Tensor  # of the distribution that the token was sampled from, in nats


class Qwen2(nn.Module):
    """Decoder with Qwen2's architecture; head size 32, tied embedding."""

    def __init__(self, weights: dict[str, Tensor]):
        """weights: by Hugging Face's names, tied, of any floating dtype; computed in float32."""
        super().__init__()
        weights = {name.removeprefix("model."): weight.float() for name, weight in weights.items()}
        self.embedding = nn.Parameter(weights["embed_tokens.weight"].clone())
        self.norm = nn.Parameter(weights["norm.weight"].clone())
        layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
        self.layers = nn.ModuleList(Layer({e: weights[f"layers.{i}.{e}"] for e in ENDINGS}) for i in range(layers))
        angle = torch.outer(torch.arange(LONGEST), ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.register_buffer("cos", torch.cat((angle.cos(), angle.cos()), 1), persistent=False)
        self.register_buffer("sin", torch.cat((-angle.sin(), angle.sin()), 1), persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """The weights by Hugging Face's names, without gradient."""
        found = {"model.embed_tokens.weight": self.embedding.detach(), "model.norm.weight": self.norm.detach()}
        for i, layer in enumerate(self.layers):
            found |= {f"model.layers.{i}.{name}": weight for name, weight in layer.weights().items()}
        return found

    def weights_copy(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self.weights().items()}

    def hidden(self, ids: Tensor, start: int = 0, caches: list[Tensor] | None = None) -> Tensor:
        """Output of the last norm, [batch, length, width]. start: position of the first id; the caches contain the
        positions before it, and these are added."""
        x = F.embedding(ids, self.embedding)
        turn = self.cos[start : start + ids.shape[1]], self.sin[start : start + ids.shape[1]]
        for i, layer in enumerate(self.layers):
            x = layer(x, turn, start, caches[i] if caches else None)
        return F.rms_norm(x, self.norm.shape, self.norm, EPSILON)

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """log pi of each response token, with gradient, and the logits' log-softmax, [batch, length, vocabulary]."""
        ids = torch.cat((prompts, responses), 1)[:, :-1]
        table = (self.hidden(ids)[:, prompts.shape[1] - 1 :] @ self.embedding.T).log_softmax(-1)
        return table.gather(2, responses[..., None])[..., 0], table

    @torch.no_grad()
    def sample(self, prompts: Tensor, uniform: Tensor | None, end: int, limit: int) -> Samples:
        """Sample responses at temperature 1, or greedily.

        prompts: [batch, prompt length]. uniform: [limit, batch] in [0, 1): the random number for each token, so that
        two policies can share them; None is greedy. end: the token that ends a response. limit: maximum tokens.
        """
        batch, start = prompts.shape
        shape = (2, batch, self.norm.numel() // HEAD_DIM, start + limit, HEAD_DIM)
        caches = [torch.empty(shape) for _ in self.layers]

        def following(ids: Tensor, place: int) -> Tensor:
            return (self.hidden(ids, place, caches)[:, -1] @ self.embedding.T).log_softmax(-1)

        return sample_tokens(following, prompts, uniform, end, limit)


class Layer(nn.Module):
    """Attention and MLP of one layer, with fused matrices for speed."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        parts = [weights[e] for e in ENDINGS]
        self.norm_1, self.norm_2 = nn.Parameter(parts[0].clone()), nn.Parameter(parts[1].clone())
        self.qkv, self.qkv_bias = nn.Parameter(torch.cat(parts[2:8:2])), nn.Parameter(torch.cat(parts[3:8:2]))
        self.out, self.down = nn.Parameter(parts[8].clone()), nn.Parameter(parts[11].clone())
        self.gate_up = nn.Parameter(torch.cat(parts[9:11]))

    def weights(self) -> dict[str, Tensor]:
        qkv = [part for pair in zip(self.qkv.chunk(3), self.qkv_bias.chunk(3), strict=True) for part in pair]
        parts = (self.norm_1, self.norm_2, *qkv, self.out, *self.gate_up.chunk(2), self.down)
        return {name: part.detach() for name, part in zip(ENDINGS, parts, strict=True)}

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], start: int, cache: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        h = F.rms_norm(x, self.norm_1.shape, self.norm_1, EPSILON)
        q, k, v = F.linear(h, self.qkv, self.qkv_bias).view(batch, length, 3, -1, HEAD_DIM).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is not None:
            end = start + length
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
            k, v = cache[:, :, :, :end]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + F.linear(attended.transpose(1, 2).reshape(batch, length, width), self.out)
        gate, up = F.linear(F.rms_norm(x, self.norm_2.shape, self.norm_2, EPSILON), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding; `sin` has its first half negated."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((second, first), -1) * sin


def sample_tokens(
    following: Callable[[Tensor, int], Tensor], ids: Tensor, uniform: Tensor | None, end: int, limit: int
) -> Samples:
    """Sample from any policy, token by token. following(ids, place): log-probabilities of the token after these ids;
    the first id is at this position, and earlier calls passed those before. ids: the prompt; the rest as in `sample`.
    """
    place, alive, steps = 0, torch.ones(len(ids), dtype=torch.bool), []
    for t in range(limit):
        table = following(ids, place)
        p = table.exp()
        tokens = table.argmax(-1) if uniform is None else draw(p, uniform[t])
        steps.append((tokens, alive, -(p * table).sum(-1)))
        alive = alive & (tokens != end)
        if not alive.any():
            break
        place, ids = place + ids.shape[1], tokens[:, None]
    return Samples(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


def draw(p: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token per row by inversion: the first whose cumulative probability exceeds `uniform`."""
    cumulative = p.cumsum(-1)
    return torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0].clamp(
        max=p.shape[-1] - 1
    )


def new_weights(shape: Shape, seed: int, std: float = 0.04) -> dict[str, Tensor]:
    """Random weights by Hugging Face's names: normal matrices, norms 1, biases 0."""
    g = torch.Generator().manual_seed(seed)
    width, inner = shape.width, shape.inner
    sizes = {"mlp.gate_proj.weight": (inner, width), "mlp.up_proj.weight": (inner, width)}
    sizes["mlp.down_proj.weight"] = (width, inner)

    def layer_weight(name: str) -> Tensor:
        if "norm" in name:
            return torch.ones(width)
        if name.endswith("bias"):
            return torch.zeros(width)
        return std * torch.randn(sizes.get(name, (width, width)), generator=g)

    found = {"model.embed_tokens.weight": std * torch.randn(shape.vocabulary, width, generator=g)}
    found["model.norm.weight"] = torch.ones(width)
    return found | {f"model.layers.{i}.{name}": layer_weight(name) for i in range(shape.layers) for name in ENDINGS}


def save(model: Qwen2, file: Path, record: str) -> None:
    """Save the weights in float16, and a record of how they were made."""
    save_file({name: w.half().contiguous() for name, w in model.weights().items()}, file, metadata={"record": record})


def load(file: Path) -> tuple[dict[str, Tensor], str]:
    """The weights and the record that `save` wrote."""
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()["record"]  # noqa: SIM118
