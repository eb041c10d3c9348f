"""The structure of a model: its layers with their attention and MLP, and its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from phasescope.components.attention import Attention, find_attention
from phasescope.components.description import Layer, Structure
from phasescope.components.mlp import find_mlp
from phasescope.components.plain import plain_layers
from phasescope.components.reading import Fused, ModelNames, Stated

_ATTENTION = ("attn", "self_attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn", "ff", "moe", "block_sparse_moe")
_EMBED = (
    "embed",
    "wte",
    "tok_embeddings",
    "embed_tokens",
    "tok_emb",
    "token_embedding",
    "embedding",
)
_POS_EMBED = (
    "pos_embed",
    "wpe",
    "pos_emb",
    "pos_embedding",
    "position_embedding",
    "embed_positions",
)
_POS_EMBED = (*_POS_EMBED, "position_embeddings", "positional_embedding")
_UNEMBED = ("unembed", "lm_head", "embed_out", "head", "output", "out", "to_logits", "generator")


def structure(
    model: nn.Module,
    *,
    n_heads: int | None = None,
    n_groups: int | None = None,
    d_head: int | None = None,
    fused: Fused | None = None,
) -> Structure:
    """Layers, heads and neurons of a model, from its names, shapes, attributes and configuration.

    Head counts come from the attention module itself, else from the configuration that it or an
    ancestor keeps, and must agree with the shapes of the tensors. How a fused matrix is divided
    into q, k and v does not show in its shape: it is known for certain families only. What cannot
    be derived is left out together with the reason; asking for it is an error that says what to
    state here.

    Args:
        model: Any module.
        n_heads: Query heads of every layer, instead of what the model says.
        n_groups: Key/value heads of every layer, instead of what the model says.
        d_head: Width of every head, instead of what the model says.
        fused: How fused matrices are divided: ``"concatenated"`` (all of q, then all of k, then all
            of v) or ``"interleaved"`` (q, k and v of the first group, then of the second).

    Returns:
        The structure. Layers are the blocks around each attention, or those in the model's module
        lists, in the order of the parameters (encoder before decoder); in a model without either
        they are the modules with a matrix.

    Raises:
        ValueError: `fused` is another word.

    Example:
        >>> layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
        >>> found = structure(layer).layers[0]
        >>> found.heads.n_heads, found.neurons.n
        (2, 16)
    """
    if fused not in (None, "concatenated", "interleaved"):
        raise ValueError(
            f"fused must be 'concatenated' or 'interleaved', but {fused!r} arrived. Leave it out "
            "for a family that phasescope knows."
        )
    names = ModelNames(model)
    attentions = find_attention(names, Stated(n_heads, n_groups, d_head, fused))
    paths = _layer_paths(names, attentions)
    outside = [n for n in names.tensors if not _is_inside_any(n, [p for p in paths if p])]
    embed, pos_embed, unembed = _embeddings(names, outside)
    if paths:
        edges = (*embed, *pos_embed, *unembed)
        layers = [_layer(names, path, attentions, edges) for path in paths]
    else:
        layers = plain_layers(names, embed + pos_embed)
    return Structure(tuple(layers), embed, pos_embed, unembed)


def _layer_paths(names: ModelNames, attentions: list[Attention]) -> list[str]:
    """Paths of the layers: blocks in numbered lists, or what is around an attention without one.

    Of a plain network, which has neither, nothing.
    """
    own = [a.path for a in attentions if not a.is_cross]
    lists: dict[str, None] = {}
    alone: list[str] = []
    for path in own:
        parts = path.split(".")
        # The outermost item that holds no other attention: a layer may have lists inside it.
        for n in range(1, len(parts) + 1):
            item = ".".join(parts[:n])
            if parts[n - 1].isdigit() and sum(_is_inside(p, item) for p in own) == 1:
                lists[".".join(parts[: n - 1])] = None
                break
        else:
            alone.append(path)
    if not own:
        # Blocks whose attention is unknown, or that have none, are layers all the same.
        found = (p for p, module in names.modules.items() if isinstance(module, nn.ModuleList))
        for path in found:
            if not any(_is_inside(path, other) for other in lists):
                lists[path] = None
    elif not lists:
        return [""] if len(alone) == 1 else [path.rpartition(".")[0] for path in alone]
    items: dict[str, None] = {}
    for name in names.tensors:
        for path in lists:
            number = (name[len(path) + 1 :] if path else name).split(".")[0]
            if _is_inside(name, path) and number.isdigit():
                items[f"{path}.{number}" if path else number] = None
    # A numbered list may also hold the embedding and the head, which are no layers.
    return [item for item in items if any(True for _ in names.modules[item].children())]


def _layer(
    names: ModelNames, path: str, attentions: list[Attention], edges: tuple[str, ...]
) -> Layer:
    inside = [a for a in attentions if _is_inside(a.path, path)]
    own = next((a for a in inside if not a.is_cross), None)
    cross = next((a for a in inside if a.is_cross), None)
    mlp = find_mlp(names, path, tuple(a.path for a in inside))
    unknown = {}
    if own is not None and own.heads is None:
        unknown["heads"] = own.problem
    if cross is not None and cross.heads is None:
        unknown["cross_heads"] = cross.problem
    if mlp is not None and mlp.neurons is None:
        unknown["neurons"] = mlp.problem
    # A model that is one layer may have its embeddings beside it.
    tensors = (path,) if path else tuple(n for n in names.tensors if not _is_inside_any(n, edges))
    return Layer(
        tensors,
        attn=(own.path or tensors) if own is not None else _named(names, path, _ATTENTION),
        mlp=mlp.tensors if mlp is not None else _named(names, path, _MLP),
        cross=cross.path if cross is not None else (),
        heads=own.heads if own is not None else None,
        cross_heads=cross.heads if cross is not None else None,
        neurons=mlp.neurons if mlp is not None else None,
        unknown=unknown,
    )


def _embeddings(
    names: ModelNames, outside: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Tensors of the token embedding, the position embedding and the unembedding."""
    embed = _from_method(names, "get_input_embeddings") or _by_name(names, outside, _EMBED)
    pos_embed = tuple(n for n in _by_name(names, outside, _POS_EMBED) if n not in embed)
    if not embed:
        tables = [n for n in outside if _is_table(names, n) and n not in pos_embed]
        embed = tuple(tables) if len(tables) == 1 else ()
    unembed = _from_method(names, "get_output_embeddings")
    if not unembed and embed:
        d_vocab = names.shapes[embed[0]]
        named = _by_name(names, outside, _UNEMBED)
        # Only what turns vectors of the embedding's width into something is an unembedding.
        if any(len(names.shapes[n]) == 2 and set(d_vocab) & set(names.shapes[n]) for n in named):
            unembed = named
    return embed, pos_embed, unembed


def _from_method(names: ModelNames, method: str) -> tuple[str, ...]:
    """Tensors of the module that a Hugging Face model calls its embedding."""
    try:
        module = getattr(names.modules[""], method)()
    except (AttributeError, NotImplementedError, TypeError):
        return ()
    paths = [path for path, found in names.modules.items() if found is module]
    return tuple(names.below(paths[0])) if module is not None and paths else ()


def _by_name(names: ModelNames, outside: list[str], words: tuple[str, ...]) -> tuple[str, ...]:
    """Tensors that are called, or whose module is called, by the first word that occurs."""
    for word in words:
        found = tuple(name for name in outside if word in name.split(".")[-2:])
        if found:
            return found
    return ()


def _is_table(names: ModelNames, name: str) -> bool:
    return isinstance(names.modules.get(name.removesuffix(".weight")), nn.Embedding)


def _named(names: ModelNames, layer: str, words: tuple[str, ...]) -> tuple[str, ...]:
    paths = (f"{layer}.{word}" if layer else word for word in words)
    return next(((path,) for path in paths if names.below(path)), ())


def _is_inside(path: str, owner: str) -> bool:
    return owner == "" or path == owner or path.startswith(f"{owner}.")


def _is_inside_any(path: str, owners: Sequence[str]) -> bool:
    return any(_is_inside(path, owner) for owner in owners)
