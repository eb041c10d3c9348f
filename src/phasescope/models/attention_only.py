"""Attention-only transformers, small enough to watch induction heads form.

Letters: b sequences, t positions (queries), s positions (keys), d width, h heads, e of a head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class AttentionOnly(nn.Module):
    """A decoder of attention layers without MLPs, with TransformerLens' names and shapes.

    Layer norm before every attention and before the unembedding, no biases but those of the norms,
    learned positions that are added to the inputs of queries and keys only ("shortformer"): values,
    and so the residual stream, carry no positions.

    Args:
        d_vocab: Tokens.
        n_ctx: Longest sequence.
        d_model: Width of the residual stream.
        n_heads: Heads per layer; they divide the width.
        n_layers: Layers.
        seed: Of the initial weights; the global random state is not touched.

    Raises:
        ValueError: The heads do not divide the width.

    Example:
        >>> model = AttentionOnly(d_vocab=64, n_ctx=64, d_model=64, n_heads=4, n_layers=2, seed=0)
        >>> sum(p.numel() for p in model.parameters())
        45440
        >>> model(torch.zeros(3, 10, dtype=torch.int64)).shape
        torch.Size([3, 10, 64])

    References:
        Press et al. (2021), "Shortformer", arXiv:2012.15832 (positions). Elhage et al. (2021), "A
        mathematical framework for transformer circuits" (attention-only models).
    """

    def __init__(
        self, *, d_vocab: int, n_ctx: int, d_model: int, n_heads: int, n_layers: int, seed: int
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"the number of heads must divide the width, but d_model={d_model} and "
                f"n_heads={n_heads}."
            )
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.ParameterDict({"W_E": _normal((d_vocab, d_model), 0.02, generator)})
        self.pos_embed = nn.ParameterDict({"W_pos": _normal((n_ctx, d_model), 0.02, generator)})
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attn": Attention(d_model, n_heads, generator),
                    "ln1": nn.LayerNorm(d_model),
                }
            )
            for _ in range(n_layers)
        )
        self.ln_final = nn.LayerNorm(d_model)
        scale = 1 / math.sqrt(d_model)
        self.unembed = nn.ParameterDict({"W_U": _normal((d_model, d_vocab), scale, generator)})

    @property
    def attention(self) -> list[Attention]:
        """The attention of every layer."""
        blocks = [cast("nn.ModuleDict", block) for block in self.blocks]
        return [cast("Attention", block["attn"]) for block in blocks]

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of the next token at every position."""
        return self.run(tokens)[0]

    def run(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        patterns: bool = False,
        replace: Mapping[tuple[int, int], Float[Tensor, "b t d"]] | None = None,
    ) -> tuple[Float[Tensor, "b t v"], list[Tensor], list[Tensor]]:
        """Logits, and what the heads did if asked for.

        Args:
            tokens: Token numbers.
            patterns: Whether to return attention patterns and outputs.
            replace: Outputs of heads (layer, head) to use instead of their own.

        Returns:
            Logits; patterns [b, h, t, s] and outputs [b, h, t, d] of every layer, empty lists if
            neither patterns nor replacements were asked for.

        Raises:
            ValueError: A head to replace does not exist.
            IndexError: A token does not (on a CPU).
        """
        if replace:
            self._check_heads(replace)
        x = functional.embedding(tokens, self.embed["W_E"])
        positions = self.pos_embed["W_pos"][: tokens.shape[1]]
        found: list[Tensor] = []
        outputs: list[Tensor] = []
        for i, (block, attention) in enumerate(zip(self.blocks, self.attention, strict=True)):
            normed = cast("nn.ModuleDict", block)["ln1"](x)
            if not patterns and not replace:
                x = x + attention(normed, positions)
                continue
            pattern, out = attention.detailed(normed, positions)
            for (layer, head), value in (replace or {}).items():
                if layer == i:
                    out = out.clone()
                    out[:, head] = value
            found.append(pattern)
            outputs.append(out)
            x = x + out.sum(1)
        return self.ln_final(x) @ self.unembed["W_U"], found, outputs

    def _check_heads(self, heads: Iterable[tuple[int, int]]) -> None:
        n_layers, n_heads = len(self.blocks), len(self.attention[0].W_Q)
        for layer, head in heads:
            if not (0 <= layer < n_layers and 0 <= head < n_heads):
                raise ValueError(
                    f"heads to replace lie in layers 0 to {n_layers - 1} with heads 0 to "
                    f"{n_heads - 1}, but ({layer}, {head}) arrived."
                )


class Attention(nn.Module):
    """Causal attention with matrices per head and no biases.

    Args:
        d_model: Width of the residual stream.
        n_heads: Heads.
        generator: Of the initial weights.
    """

    def __init__(self, d_model: int, n_heads: int, generator: torch.Generator) -> None:
        super().__init__()
        shape = (n_heads, d_model, d_model // n_heads)
        scale = 1 / math.sqrt(d_model)
        self.W_Q = _normal(shape, scale, generator)
        self.W_K = _normal(shape, scale, generator)
        self.W_V = _normal(shape, scale, generator)
        self.W_O = _normal((n_heads, d_model // n_heads, d_model), scale, generator)

    def forward(self, x: Float[Tensor, "b t d"], positions: Float[Tensor, "t d"]) -> Tensor:
        """What all heads add to the residual stream."""
        q, k, v = self._qkv(x, positions)
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return z.transpose(1, 2).flatten(2) @ self.W_O.flatten(0, 1)

    def detailed(
        self, x: Float[Tensor, "b t d"], positions: Float[Tensor, "t d"]
    ) -> tuple[Float[Tensor, "b h t s"], Float[Tensor, "b h t d"]]:
        """Attention patterns, and what every head adds by itself."""
        q, k, v = self._qkv(x, positions)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return pattern, torch.einsum("bhte,hed->bhtd", pattern @ v, self.W_O)

    def _qkv(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        placed = x + positions
        h, d, e = self.W_Q.shape

        def split(y: Tensor, W: Tensor) -> Tensor:
            flat = y @ W.transpose(0, 1).reshape(d, h * e)
            return flat.unflatten(-1, (h, e)).transpose(1, 2)

        return split(placed, self.W_Q), split(placed, self.W_K), split(x, self.W_V)


def _normal(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(shape, generator=generator))
