"""A transformer that reads two tokens, and "=", and answers at the last position.

Axes: n pairs, p tokens, c positions of the context, heads, d_head, d_model, d_mlp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phasescope.models.activations import activation_function
from phasescope.models.operands import of_pairs
from phasescope.models.pair_forward import (
    Hook,
    Shape,
    logits_from_tables,
    pair_logits,
    pair_tables,
)

Init = Literal["progress_measures", "transformerlens", "pizza"]
INITS: tuple[Init, ...] = ("progress_measures", "transformerlens", "pizza")


class _Weights(nn.Module):
    """Tensors under a name, and what hangs below it."""

    def __init__(self, tensors: dict[str, Tensor], **children: nn.Module) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))
        for name, child in children.items():
            self.add_module(name, child)


@dataclass(frozen=True, eq=False)
class PairActivations:
    """What a one-layer transformer of pairs computes on the way to its logits.

    All at the last position, and of the last layer.
    """

    pattern: Float[Tensor, "n heads c"]
    """Attention of the last position to every position."""
    z: Float[Tensor, "n heads d_head"]
    """Outputs of the heads before W_O."""
    resid_mid: Float[Tensor, "n d_model"]
    """Residual stream between attention and MLP."""
    pre: Float[Tensor, "n d_mlp"]
    """Inputs of the neurons."""
    mid: Float[Tensor, "n d_mlp"]
    """Outputs of the activation."""
    post: Float[Tensor, "n d_mlp"]
    """The same after the LayerNorm inside the MLP; equal to `mid` where there is none."""
    resid_post: Float[Tensor, "n d_model"]
    """Residual stream that the logits are read from."""
    logits: Float[Tensor, "n outputs"]
    """All logits, that of "=" included if there is one."""


class PairTransformer(nn.Module):
    """The network of the grokking literature: two operands in, logits of the result out.

    Without LayerNorm in the residual stream. Parameters have TransformerLens's names and shapes,
    and the results are those of its `HookedTransformer` with ``normalization_type=None`` at the
    last position. Only what that position needs is computed.

    What the sources call the same network differs in how it starts:

    - ``"progress_measures"`` (Nanda et al.): all weights normal with standard deviation
      1/√d_model, W_U with 1/√n_outputs; logits for "=" too; the MLP's biases are trained.
    - ``"transformerlens"`` (its grokking demonstration): .8/√d_model; no logit for "="; biases
      stay 0.
    - ``"pizza"`` (Zhong et al.): as the first, W_in with 1/√d_mlp; without "=" and without mask,
      and its attention may be a mixture with a constant one.

    Example:
        >>> model = PairTransformer(113)
        >>> sum(p.numel() for p in model.parameters())
        226816
        >>> model(torch.tensor([[0, 1], [5, 7]])).shape, model.W_E.shape
        (torch.Size([2, 114]), torch.Size([114, 128]))

    References:
        Nanda et al. (2023), "Progress measures for grokking via mechanistic interpretability",
        arXiv:2301.05217. Zhong et al. (2023), "The Clock and the Pizza", arXiv:2306.17844.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        d_model: int = 128,
        n_heads: int = 4,
        d_head: int | None = None,
        d_mlp: int = 512,
        n_layers: int = 1,
        activation: str = "relu",
        init: Init = "progress_measures",
        n_outputs: int | None = None,
        n_context: Literal[2, 3] | None = None,
        attention_rate: float = 1.0,
        causal: bool | None = None,
        all_biases: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build it with random weights.

        Args:
            n_tokens: Number of operands p, tokens 0 to p − 1.
            d_model: Width of the residual stream.
            n_heads: Heads of every layer.
            d_head: Width of a head; d_model / n_heads by default.
            d_mlp: Neurons of every layer.
            n_layers: Layers.
            activation: A name of `ACTIVATIONS`, with or without ``_ln``.
            init: Whose convention.
            n_outputs: Number of logits; by the convention, p + 1 or p.
            n_context: 3 for a, b and "=", 2 without; by the convention.
            attention_rate: r in r·softmax + (1 − r)·1, between 0 and 1.
            causal: Whether a position sees only itself and those before it; by the convention.
                It makes no difference with one layer.
            all_biases: Whether attention and unembedding have biases too, starting from 0.
            generator: Source of the random weights, on the CPU.

        Raises:
            ValueError: An unknown activation or convention, or sizes that do not fit.
        """
        super().__init__()
        _check_sizes(n_tokens, d_model, n_heads, d_head, d_mlp, n_layers, attention_rate)
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, but {init!r} arrived.")
        _, has_layer_norm = activation_function(activation)
        n_context = n_context or (2 if init == "pizza" else 3)
        with_equals = n_context == 3
        vocabulary = n_tokens + with_equals
        n_outputs = n_outputs or (n_tokens if init == "transformerlens" else vocabulary)
        if n_outputs < n_tokens or n_context not in (2, 3):
            raise ValueError(
                "there must be a logit for every operand and a context of 2 or 3 tokens, but "
                f"n_outputs is {n_outputs} for {n_tokens} operands and n_context {n_context}."
            )
        d_head = d_head or d_model // n_heads
        self.shape = Shape(
            n_tokens,
            n_context,
            n_layers,
            n_heads,
            activation,
            attention_rate,
            causal=init != "pizza" if causal is None else causal,
        )

        usual = (0.8 if init == "transformerlens" else 1.0) / math.sqrt(d_model)

        def normal(*size: int, std: float | None = None) -> Tensor:
            return torch.randn(size, generator=generator) * (usual if std is None else std)

        self.embed = _Weights({"W_E": normal(vocabulary, d_model)})
        self.pos_embed = _Weights({"W_pos": normal(n_context, d_model)})
        blocks = []
        for _ in range(n_layers):
            attn = {f"W_{x}": normal(n_heads, d_model, d_head) for x in "QKV"}
            attn["W_O"] = normal(n_heads, d_head, d_model)
            if all_biases:
                attn |= {f"b_{x}": torch.zeros(n_heads, d_head) for x in "QKV"}
                attn["b_O"] = torch.zeros(d_model)
            std_in = 1 / math.sqrt(d_mlp) if init == "pizza" else None
            mlp = {"W_in": normal(d_model, d_mlp, std=std_in), "b_in": torch.zeros(d_mlp)}
            mlp |= {"W_out": normal(d_mlp, d_model), "b_out": torch.zeros(d_model)}
            norm = {"ln": _Weights({"w": torch.ones(d_mlp), "b": torch.zeros(d_mlp)})}
            blocks.append(
                _Weights(
                    {}, attn=_Weights(attn), mlp=_Weights(mlp, **(norm if has_layer_norm else {}))
                )
            )
        self.blocks = nn.ModuleList(blocks)
        std_U = None if init == "transformerlens" else 1 / math.sqrt(n_outputs)
        unembed = {"W_U": normal(d_model, n_outputs, std=std_U)}
        if all_biases:
            unembed["b_U"] = torch.zeros(n_outputs)
        self.unembed = _Weights(unembed)
        if init == "transformerlens":
            for name, parameter in self.named_parameters():
                if name.rpartition(".")[2].startswith("b_"):
                    parameter.requires_grad_(False)

    def forward(
        self, pairs: Int64[Tensor, "n 2"], hook: Hook | None = None
    ) -> Float[Tensor, "n outputs"]:
        """Logits of pairs of operands, at the last position.

        Args:
            pairs: Tokens a and b.
            hook: Called with the name and the value of every intermediate, such as
                ``"blocks.0.mlp.hook_post"`` and its [n, d_mlp]; a tensor that it returns replaces
                the value. The last layer's are those of the last position; earlier layers have an
                axis of positions after the pairs.

        Returns:
            Logits, in nats; "=" included if the network has a logit for it.

        Raises:
            ValueError: The pairs have another shape or type, or (on a CPU) a token that is none.
        """

        def logits() -> Tensor:
            return pair_logits(dict(self.named_parameters()), pairs, self.shape, hook)

        return of_pairs(logits, pairs, self.n_tokens)

    def tables(self) -> dict[str, Tensor] | None:
        """What `forward` needs of the present weights alone; None if there is no such part."""
        return pair_tables(dict(self.named_parameters()), self.shape)

    def from_tables(
        self, tables: dict[str, Tensor], pairs: Int64[Tensor, "n 2"]
    ) -> Float[Tensor, "n outputs"]:
        """What `forward` returns, from `tables`.

        Args:
            tables: What `tables` has returned.
            pairs: Tokens a and b.

        Raises:
            ValueError: As of `forward`.
        """

        def logits() -> Tensor:
            return logits_from_tables(tables, pairs, self.shape)

        return of_pairs(logits, pairs, self.n_tokens)

    def activations(self, pairs: Int64[Tensor, "n 2"]) -> PairActivations:
        """What is computed on the way to the logits, at the last position of the last layer.

        Args:
            pairs: Tokens a and b.

        Returns:
            All intermediates that the literature measures; no gradients are kept.
        """
        seen: dict[str, Tensor] = {}
        last = f"blocks.{self.shape.n_layers - 1}."

        def keep(name: str, value: Tensor) -> None:
            seen[name] = value

        with torch.no_grad():
            logits = self(pairs, keep)
        return PairActivations(
            pattern=seen[last + "attn.hook_pattern"],
            z=seen[last + "attn.hook_z"],
            resid_mid=seen[last + "hook_resid_mid"],
            pre=seen[last + "mlp.hook_pre"],
            mid=seen[last + "mlp.hook_mid"],
            post=seen[last + "mlp.hook_post"],
            resid_post=seen[last + "hook_resid_post"],
            logits=logits,
        )

    def all_pairs(self) -> Int64[Tensor, "pp 2"]:
        """Every pair of operands: row a·p + b."""
        tokens = torch.arange(self.n_tokens, device=self.W_E.device)
        return torch.cartesian_prod(tokens, tokens)

    def logits_of_all_pairs(self) -> Float[Tensor, "p p p"]:
        """Logits L[a, b, c] of all pairs and results, without that of "="; without gradient."""
        with torch.no_grad():
            logits = self(self.all_pairs())
        return logits[:, : self.n_tokens].unflatten(0, (self.n_tokens, self.n_tokens))

    @property
    def n_tokens(self) -> int:
        """Number of operands."""
        return self.shape.n_tokens

    @property
    def n_outputs(self) -> int:
        """Number of logits."""
        return self.W_U.shape[-1]

    @property
    def W_E(self) -> Float[Tensor, "vocabulary d_model"]:
        """Embedding; "=" is the last row, if there is one."""
        return self.embed.get_parameter("W_E")

    @property
    def W_pos(self) -> Float[Tensor, "c d_model"]:
        """Positional embedding."""
        return self.pos_embed.get_parameter("W_pos")

    @property
    def W_U(self) -> Float[Tensor, "d_model outputs"]:
        """Unembedding."""
        return self.unembed.get_parameter("W_U")

    @property
    def W_Q(self) -> Float[Tensor, "layers heads d_model d_head"]:
        """Query matrices of all layers."""
        return self._stacked("attn.W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layers heads d_model d_head"]:
        """Key matrices of all layers."""
        return self._stacked("attn.W_K")

    @property
    def W_V(self) -> Float[Tensor, "layers heads d_model d_head"]:
        """Value matrices of all layers."""
        return self._stacked("attn.W_V")

    @property
    def W_O(self) -> Float[Tensor, "layers heads d_head d_model"]:
        """Output matrices of the heads of all layers."""
        return self._stacked("attn.W_O")

    @property
    def W_in(self) -> Float[Tensor, "layers d_model d_mlp"]:
        """Input weights of the neurons of all layers."""
        return self._stacked("mlp.W_in")

    @property
    def b_in(self) -> Float[Tensor, "layers d_mlp"]:
        """Biases of the neurons of all layers."""
        return self._stacked("mlp.b_in")

    @property
    def W_out(self) -> Float[Tensor, "layers d_mlp d_model"]:
        """Output weights of the neurons of all layers."""
        return self._stacked("mlp.W_out")

    @property
    def b_out(self) -> Float[Tensor, "layers d_model"]:
        """Output biases of the MLPs of all layers."""
        return self._stacked("mlp.b_out")

    def _stacked(self, name: str) -> Tensor:
        return torch.stack([block.get_parameter(name) for block in self.blocks])


def _check_sizes(
    n_tokens: int,
    d_model: int,
    n_heads: int,
    d_head: int | None,
    d_mlp: int,
    n_layers: int,
    attention_rate: float,
) -> None:
    if min(n_tokens, d_model, n_heads, d_mlp, n_layers) < 1 or (d_head is not None and d_head < 1):
        raise ValueError(
            "all sizes must be positive, but they are "
            f"n_tokens={n_tokens}, d_model={d_model}, n_heads={n_heads}, d_head={d_head}, "
            f"d_mlp={d_mlp}, n_layers={n_layers}."
        )
    if d_head is None and d_model % n_heads:
        raise ValueError(
            f"d_model must be a multiple of n_heads where d_head is not given, but {d_model} is "
            f"none of {n_heads}."
        )
    if not 0 <= attention_rate <= 1:
        raise ValueError(f"attention_rate must lie between 0 and 1, but it is {attention_rate}.")
