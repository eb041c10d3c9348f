"""Tiny transformers of every common layout of weights, which show what goes on inside.

Each attention keeps `z` (batch, position, head, d_head: what the output projection reads) and
`pattern` (batch, head, position, position); each MLP keeps `acts` (batch, position, neuron). All of
them multiply `z` and `acts` by `keep_z` and `keep_acts`, which are 1 unless a test ablates a part.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

D_MODEL, D_HEAD, D_MLP, N_HEADS, D_VOCAB, N_CTX = 12, 5, 7, 4, 11, 6


def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Pattern and causal attention of (batch, position, head, d_head), groups shared in order."""
    r = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(r, 2), v.repeat_interleave(r, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    pattern = scores.softmax(-1)
    return pattern, torch.einsum("bhqk,bkhd->bqhd", pattern, v)


class Watched(nn.Module):
    """What an attention or MLP keeps."""

    def __init__(self):
        super().__init__()
        self.keep_z: Tensor | float = 1.0
        self.keep_acts: Tensor | float = 1.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.pattern, self.z = attend(q, k, v)
        return self.z * self.keep_z


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / 3)


class LensAttention(Watched):
    """TransformerLens: a tensor per matrix, heads first; with groups the names have underscores."""

    def __init__(self, n_groups: int = N_HEADS):
        super().__init__()
        self.W_Q, self.b_Q = parameter(N_HEADS, D_MODEL, D_HEAD), parameter(N_HEADS, D_HEAD)
        mark = "" if n_groups == N_HEADS else "_"
        for part in "KV":
            setattr(self, f"{mark}W_{part}", parameter(n_groups, D_MODEL, D_HEAD))
            setattr(self, f"{mark}b_{part}", parameter(n_groups, D_HEAD))
        self.W_O, self.b_O = parameter(N_HEADS, D_HEAD, D_MODEL), parameter(D_MODEL)
        self.mark = mark

    def forward(self, x: Tensor) -> Tensor:
        def part(name: str) -> Tensor:
            mark = "" if name == "Q" else self.mark
            W, b = getattr(self, f"{mark}W_{name}"), getattr(self, f"{mark}b_{name}")
            return torch.einsum("btm,hmd->bthd", x, W) + b

        z = self.attend(part("Q"), part("K"), part("V"))
        return torch.einsum("bthd,hdm->btm", z, self.W_O) + self.b_O


class TransposedAttention(Watched):
    """Nanda et al. (2023): W_Q as head × d_head × d_model, W_O as d_model × (heads of d_head)."""

    def __init__(self):
        super().__init__()
        for part in "QKV":
            setattr(self, f"W_{part}", parameter(N_HEADS, D_HEAD, D_MODEL))
        self.W_O = parameter(D_MODEL, N_HEADS * D_HEAD)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btm,hdm->bthd", x, getattr(self, f"W_{p}")) for p in "QKV")
        return self.attend(q, k, v).flatten(2) @ self.W_O.T


class SplitAttention(Watched):
    """Llama: q_proj, k_proj, v_proj and o_proj; says n_groups and the width of its heads itself."""

    def __init__(self, n_groups: int = 2, d_head: int = D_HEAD):
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim = N_HEADS, n_groups, d_head
        self.q_proj = nn.Linear(D_MODEL, N_HEADS * d_head)
        self.k_proj = nn.Linear(D_MODEL, n_groups * d_head, bias=False)
        self.v_proj = nn.Linear(D_MODEL, n_groups * d_head)
        self.o_proj = nn.Linear(N_HEADS * d_head, D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        parts = (layer(x) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(
            self.attend(*(p.unflatten(-1, (-1, self.head_dim)) for p in parts)).flatten(2)
        )


class Conv1D(nn.Module):
    """GPT-2's layer: inputs × outputs."""

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = parameter(nx, nf), parameter(nf)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class FusedAttention(Watched):
    """nanoGPT (Linear), GPT-2 (Conv1D): c_attn; or another name and division of its outputs."""

    def __init__(
        self,
        layer: str = "linear",
        names: tuple[str, str] = ("c_attn", "c_proj"),
        *,
        interleaved: bool = False,
    ):
        super().__init__()
        self.n_head, self.interleaved, self.names = N_HEADS, interleaved, names
        width = N_HEADS * D_HEAD
        linear = layer == "linear"
        make = nn.Linear if linear else lambda n_in, n_out: Conv1D(n_out, n_in)
        setattr(self, names[0], make(D_MODEL, 3 * width))
        setattr(self, names[1], make(width, D_MODEL))

    def forward(self, x: Tensor) -> Tensor:
        qkv = getattr(self, self.names[0])(x)
        if self.interleaved:
            q, k, v = qkv.unflatten(-1, (N_HEADS, 3, D_HEAD)).unbind(-2)
        else:
            q, k, v = qkv.unflatten(-1, (3, N_HEADS, D_HEAD)).unbind(-3)
        return getattr(self, self.names[1])(self.attend(q, k, v).flatten(2))


class LensMLP(Watched):
    """TransformerLens: W_in and W_out as inputs × outputs, perhaps a gate."""

    def __init__(self, *, gated: bool = False):
        super().__init__()
        self.W_in, self.b_in = parameter(D_MODEL, D_MLP), parameter(D_MLP)
        self.W_out, self.b_out = parameter(D_MLP, D_MODEL), parameter(D_MODEL)
        self.W_gate = parameter(D_MODEL, D_MLP) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        self.acts = functional.gelu(x @ self.W_in + self.b_in)
        if self.W_gate is not None:
            self.acts = (x @ self.W_in + self.b_in) * functional.silu(x @ self.W_gate)
        return (self.acts * self.keep_acts) @ self.W_out + self.b_out


class TransposedMLP(Watched):
    """Nanda et al. (2023): W_in and W_out as outputs × inputs."""

    def __init__(self):
        super().__init__()
        self.W_in, self.b_in = parameter(D_MLP, D_MODEL), parameter(D_MLP)
        self.W_out, self.b_out = parameter(D_MODEL, D_MLP), parameter(D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        self.acts = functional.relu(x @ self.W_in.T + self.b_in)
        return (self.acts * self.keep_acts) @ self.W_out.T + self.b_out


class LayerMLP(Watched):
    """Any of the naming schemes: layers in, an optional gate, one layer out."""

    def __init__(
        self, ups: tuple[str, ...], down: str, *, layer: str = "linear", fused: bool = False
    ):
        super().__init__()
        self.names = ups, down, fused
        make = nn.Linear if layer == "linear" else lambda n_in, n_out: Conv1D(n_out, n_in)
        for up in ups:
            setattr(self, up, make(D_MODEL, D_MLP * (1 + fused)))
        setattr(self, down, make(D_MLP, D_MODEL))

    def forward(self, x: Tensor) -> Tensor:
        ups, down, fused = self.names
        parts = [getattr(self, up)(x) for up in ups]
        if fused:
            parts = list(parts[0].chunk(2, -1))
        self.acts = functional.silu(parts[0])
        for part in parts[1:]:
            self.acts = self.acts * part
        return getattr(self, down)(self.acts * self.keep_acts)


class Block(nn.Module):
    def __init__(self, attention: nn.Module, mlp: nn.Module, norm: str = "ln_1"):
        super().__init__()
        self.norm = norm
        setattr(self, norm, nn.LayerNorm(D_MODEL))
        self.attn = attention
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(getattr(self, self.norm)(x))
        return x + self.mlp(x)


class Embed(nn.Module):
    def __init__(self, name: str, *shape: int):
        super().__init__()
        self.name = name
        setattr(self, name, parameter(*shape))


class LensModel(nn.Module):
    """TransformerLens' names of layers and embeddings; without heads or MLPs of another layout."""

    def __init__(self, attentions: list[nn.Module], mlps: list[nn.Module]):
        super().__init__()
        self.embed = Embed("W_E", D_VOCAB, D_MODEL)
        self.pos_embed = Embed("W_pos", N_CTX, D_MODEL)
        pairs = zip(attentions, mlps, strict=True)
        self.blocks = nn.ModuleList(Block(attention, mlp) for attention, mlp in pairs)
        self.ln_final = nn.LayerNorm(D_MODEL)
        self.unembed = Embed("W_U", D_MODEL, D_VOCAB)
        self.unembed.b_U = parameter(D_VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed.W_E[tokens] + self.pos_embed.W_pos[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x) @ self.unembed.W_U + self.unembed.b_U


class Transformer(nn.Module):
    """GPT-2's and nanoGPT's names of layers and embeddings, the unembedding perhaps tied."""

    def __init__(self, attentions: list[nn.Module], mlps: list[nn.Module], *, tied: bool = False):
        super().__init__()
        pairs = zip(attentions, mlps, strict=True)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(D_VOCAB, D_MODEL),
                "wpe": nn.Embedding(N_CTX, D_MODEL),
                "h": nn.ModuleList(Block(attention, mlp) for attention, mlp in pairs),
                "ln_f": nn.LayerNorm(D_MODEL),
            }
        )
        self.lm_head = nn.Linear(D_MODEL, D_VOCAB, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


def tokens() -> Tensor:
    """Three sequences of six tokens."""
    return torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 0], [3, 3, 1, 4, 1, 5]])


def cube_loss(model: nn.Module) -> Tensor:
    """A number that depends on every parameter."""
    return model(tokens()).pow(3).sum()


def lens(n_groups: int = N_HEADS, *, gated: bool = False) -> nn.Module:
    """A two-layer model with TransformerLens' layout."""
    return LensModel(
        [LensAttention(n_groups) for _ in range(2)], [LensMLP(gated=gated) for _ in range(2)]
    )


def nano_gpt(*, tied: bool = False) -> nn.Module:
    """A two-layer model with nanoGPT's layout."""
    return Transformer(
        [FusedAttention() for _ in range(2)],
        [LayerMLP(("c_fc",), "c_proj") for _ in range(2)],
        tied=tied,
    )


FAMILIES = {
    "lens": lens,
    "lens with groups": lambda: lens(2),
    "lens with a gate": lambda: lens(gated=True),
    "transposed": lambda: LensModel(
        [TransposedAttention(), TransposedAttention()], [TransposedMLP(), TransposedMLP()]
    ),
    "nanoGPT": nano_gpt,
    "nanoGPT, tied": lambda: nano_gpt(tied=True),
    "Conv1D": lambda: Transformer(
        [FusedAttention("Conv1D"), FusedAttention("Conv1D")],
        [LayerMLP(("c_fc",), "c_proj", layer="Conv1D") for _ in range(2)],
    ),
    "groups": lambda: Transformer(
        [SplitAttention(), SplitAttention(1)],
        [LayerMLP(("gate_proj", "up_proj"), "down_proj"), LayerMLP(("linear1",), "linear2")],
    ),
    "width per layer": lambda: Transformer(
        [SplitAttention(4, 3), SplitAttention(2, 8)],
        [
            LayerMLP(("gate_up_proj",), "down_proj", fused=True),
            LayerMLP(("dense_h_to_4h",), "dense_4h_to_h"),
        ],
    ),
}
