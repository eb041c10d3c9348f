"""Other people's trained transformers of pairs, and our own, from files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from phasescope.models.activations import activation_function
from phasescope.models.pair_transformer import PairTransformer
from phasescope.parameters import without_wrapper_prefixes

Layout = Literal["transformerlens", "progress_measures"]
METADATA = "pair_transformer"
_BUFFERS = ("mask", "IGNORE")
# What training scripts call the state dict inside of a file with more in it.
_INNER = ("model", "state_dict", "model_state_dict")
_SERIES = ("state_dicts", "checkpoints")
# Where a recorder's own checkpoint has the model's tensors, beside those of the optimizer.
_RECORDED = "/model/"
# How files of torch.save begin: a zip archive, or before PyTorch 1.6 a pickle of protocol 2 to 5.
_SAVED = (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, 6)))


def load_grokking_checkpoint(
    path: str | os.PathLike[str],
    *,
    activation: str | None = None,
    attention_rate: float | None = None,
) -> PairTransformer:
    """A trained transformer of pairs, from a file of any of the known layouts.

    Layouts are recognised from keys and shapes: TransformerLens 2.x (``HookedTransformer`` without
    LayerNorm in the residual stream), the progress measures' (also that of the first grokking
    notebooks), the pizza models', and what `save_pair_transformer` writes. Prefixes that wrappers
    put in front of all names (``module.``, ``_orig_mod.``, ``model.``) are removed. Nothing is
    unpickled but tensors and plain containers.

    A state dict does not say which activation was used, nor the pizza models' attention rate.
    Where a JSON file of the same name stands beside it (``config_X.json`` for ``model_X.pt``, as
    the pizza models have), `act_fn` and `attn_coeff` are read there; otherwise say so, or accept
    ReLU.

    Args:
        path: A .pt or .pth file that holds a state dict (or a dictionary with it under ``model``,
            ``state_dict`` or ``model_state_dict``, or a list under ``state_dicts``, of which the
            last is taken), or a .safetensors file; ``tensors.safetensors`` of a recorder's
            checkpoint is one.
        activation: A name of `ACTIVATIONS`, with or without ``_ln``.
        attention_rate: r in the attention r·softmax + (1 − r)·1 of a pizza model.

    Returns:
        The network on the CPU, in evaluation mode; in float64 if a tensor is, else in float32.

    Raises:
        ValueError: The file cannot be read, is no state dict, or none that fits; the message says
            what is missing, too much, of another shape, or not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> save_pair_transformer(PairTransformer(7, d_model=8, n_heads=2, d_mlp=16), path)
        >>> load_grokking_checkpoint(path).logits_of_all_pairs().shape
        torch.Size([7, 7, 7])
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"{path.name} must be a file that holds a state dict, but it is a folder. Name the "
            "file in it, such as model.pt, or tensors.safetensors of a recorder's checkpoint."
        )
    settings: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        state, settings = _load_safetensors(path)
    else:
        state = _state_dict(_load(path), path)
        settings = _sibling_settings(path)
    given = {"activation": activation, "attention_rate": attention_rate}
    settings |= {name: value for name, value in given.items() if value is not None}
    try:
        return pair_transformer_from_state(state, **settings)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def save_pair_transformer(model: PairTransformer, path: str | os.PathLike[str]) -> None:
    """Write a transformer of pairs to a .safetensors file that `load_grokking_checkpoint` reads.

    Args:
        model: The network.
        path: The file; one that exists is replaced.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> save_pair_transformer(PairTransformer(7, d_model=8, n_heads=2, d_mlp=16), path)
        >>> path.exists()
        True
    """
    from safetensors.torch import save_file

    shape = asdict(model.shape)
    settings = {name: shape[name] for name in ("activation", "attention_rate", "causal")}
    tensors = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    save_file(tensors, path, metadata={METADATA: json.dumps(settings)})


def pair_transformer_from_state(
    state: Mapping[str, Tensor],
    *,
    activation: str = "relu",
    attention_rate: float | None = None,
    causal: bool | None = None,
) -> PairTransformer:
    """A transformer of pairs with the weights of a state dict of any of the known layouts.

    Args:
        state: The state dict; buffers such as masks are left out, and prefixes that wrappers put
            in front of all names.
        activation: A name of `ACTIVATIONS`, with or without ``_ln``.
        attention_rate: r in the attention r·softmax + (1 − r)·1; required for a context of two
            tokens, which is the pizza models', and 1 otherwise.
        causal: Whether positions see only what is before them; by default with "=" they do.

    Returns:
        The network on the CPU, in evaluation mode; in float64 if a tensor is, else in float32.

    Raises:
        ValueError: It does not fit.

    Example:
        >>> model = PairTransformer(7, d_model=8, n_heads=2, d_mlp=16)
        >>> again = pair_transformer_from_state(model.state_dict())
        >>> torch.equal(again.W_E, model.W_E)
        True
    """
    _, has_layer_norm = activation_function(activation)
    state = without_wrapper_prefixes(state)
    state = {k: v for k, v in state.items() if k.rpartition(".")[2] not in _BUFFERS}
    layout = _recognise(state)
    dtype = torch.float64 if torch.float64 in {v.dtype for v in state.values()} else torch.float32
    tensors = {k: _as_transformerlens(k, v.detach().to(dtype), layout) for k, v in state.items()}
    sizes = _read_sizes(tensors)
    if sizes.n_context == 2 and attention_rate is None:
        raise ValueError(
            "the context has two tokens, as in the pizza models, whose attention mixes a softmax "
            "with a constant: attention_rate is required (attn_coeff in their configuration), "
            "between 0 (constant) and 1 (softmax)."
        )
    for block in range(sizes.n_layers if has_layer_norm else 0):
        # TransformerLens without normalization_type normalises without weights.
        tensors.setdefault(f"blocks.{block}.mlp.ln.w", torch.ones(sizes.d_mlp))
        tensors.setdefault(f"blocks.{block}.mlp.ln.b", torch.zeros(sizes.d_mlp))
    model = PairTransformer(
        sizes.n_tokens,
        d_model=sizes.d_model,
        n_heads=sizes.n_heads,
        d_head=sizes.d_head,
        d_mlp=sizes.d_mlp,
        n_layers=sizes.n_layers,
        n_outputs=sizes.n_outputs,
        n_context=3 if sizes.n_context == 3 else 2,
        causal=sizes.n_context == 3 if causal is None else causal,
        activation=activation,
        attention_rate=1.0 if attention_rate is None else attention_rate,
        all_biases="blocks.0.attn.b_O" in tensors,
    )
    _check_fit(tensors, dict(model.named_parameters()), activation)
    model = model.to(dtype)
    model.load_state_dict(tensors)
    return model.eval()


@dataclass(frozen=True)
class _Sizes:
    n_tokens: int
    n_outputs: int
    n_context: int
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model's tensors, and what `save_pair_transformer` wrote beside them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            names = [name for name in names if name.startswith(_RECORDED)] or names
            state = {name.removeprefix(_RECORDED): file.get_tensor(name) for name in names}
            return state, json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except SafetensorError as error:
        raise _unreadable(path, "safetensors") from error


def _load(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(2)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the first bytes of a stranger's file make of the reader
        if not isinstance(error, pickle.UnpicklingError) or start not in _SAVED:
            raise _unreadable(path, "PyTorch") from error
        raise ValueError(
            f"{path.name} must hold tensors and plain containers only, but loading it would run "
            "code of a stranger (torch.load with weights_only=True refuses it). In an environment "
            "that you trust with the file, save its state dict alone: "
            "torch.save(model.state_dict(), ...)."
        ) from error


def _unreadable(path: Path, kind: str) -> ValueError:
    n_bytes = path.stat().st_size
    found = f"its {n_bytes:,} bytes cannot be read as one" if n_bytes else "it is empty"
    return ValueError(
        f"{path.name} must be a {kind} file that holds a state dict, but {found}. If it is of that "
        "kind at all, writing or downloading it has broken off: save or download it again."
    )


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in whatever a file holds."""
    for name in _INNER:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    for name in _SERIES:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), list) and loaded[name]:
            loaded = loaded[name][-1]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        found = f"keys {', '.join(map(str, loaded))[:200]}" if isinstance(loaded, Mapping) else ""
        raise ValueError(
            f"{path.name} must hold a state dict (names to tensors), alone or under one of "
            f"{', '.join((*_INNER, *_SERIES))}, but it holds a {type(loaded).__name__} {found}"
        )
    return dict(loaded)


def _sibling_settings(path: Path) -> dict[str, Any]:
    """Activation and attention rate from the configuration beside a pizza model."""
    stem = path.stem.removeprefix("model_")
    for sibling in (path.with_name(f"config_{stem}.json"), path.with_suffix(".json")):
        if sibling.is_file():
            config = json.loads(sibling.read_text(encoding="utf-8"))
            settings: dict[str, Any] = {}
            if "act_fn" in config:
                settings["activation"] = str(config["act_fn"]).lower()
            if "attn_coeff" in config:
                settings["attention_rate"] = float(config["attn_coeff"])
            return settings
    return {}


def _recognise(state: Mapping[str, Tensor]) -> Layout:
    """Which layout a state dict has, by the shape of an output matrix."""
    needed = ("embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_O", "unembed.W_U")
    missing = [name for name in needed if name not in state]
    if missing:
        inside = next((name for name in state if name.endswith(f".{needed[0]}")), None)
        prefix = "" if inside is None else inside.removesuffix(needed[0])
        raise ValueError(
            "a state dict of TransformerLens, of the progress measures or of the pizza models is "
            f"required, but {', '.join(missing)} is missing; there are "
            f"{', '.join(state)[:300] or 'no tensors'}."
            + (f" Keep the names that begin with {prefix!r}, without it." if prefix else "")
        )
    normed = [name for name in state if ".ln1." in name or ".ln2." in name or "ln_final" in name]
    if normed:
        raise ValueError(
            "a network without LayerNorm in its residual stream is required (normalization_type "
            f"None), but there are {', '.join(normed)[:200]}."
        )
    return "transformerlens" if state["blocks.0.attn.W_O"].ndim == 3 else "progress_measures"


def _as_transformerlens(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    """A tensor in TransformerLens's orientation: inputs first, outputs last."""
    last = name.rpartition(".")[2]
    if layout == "transformerlens" or last in ("W_pos", "W_U"):
        return tensor
    if last == "W_O":  # d_model × (heads, d_head); the heads are told apart later
        return tensor.T
    return tensor.mT if tensor.ndim > 1 else tensor


def _read_sizes(tensors: dict[str, Tensor]) -> _Sizes:
    """Sizes from the shapes, and the heads of flat output matrices told apart."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    W_Q, W_in = shapes.get("blocks.0.attn.W_Q", ()), shapes.get("blocks.0.mlp.W_in", ())
    W_pos, W_E, W_U = (shapes[k] for k in ("pos_embed.W_pos", "embed.W_E", "unembed.W_U"))
    if (len(W_Q), len(W_in), len(W_pos), len(W_E), len(W_U)) != (3, 2, 2, 2, 2):
        raise ValueError(
            "W_Q must have three axes (heads first), W_in, W_pos, W_E and W_U two, but their "
            f"shapes are {W_Q}, {W_in}, {W_pos}, {W_E} and {W_U}."
        )
    n_context = W_pos[0]
    if n_context not in (2, 3):
        raise ValueError(
            f"the context must have three tokens (a, b, =) or two (a, b), but W_pos has "
            f"{n_context} positions. Networks of longer sequences are not transformers of pairs."
        )
    n_heads, _, d_head = W_Q
    n_layers = 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("blocks."))
    for block in range(n_layers):
        name = f"blocks.{block}.attn.W_O"
        flat = tensors.get(name)
        if flat is not None and flat.ndim == 2 and flat.shape[0] == n_heads * d_head:
            tensors[name] = flat.unflatten(0, (n_heads, d_head))
    n_tokens = W_E[0] - (n_context == 3)
    return _Sizes(n_tokens, W_U[1], n_context, n_layers, n_heads, W_pos[1], d_head, W_in[1])


def _check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], activation: str
) -> None:
    """Compare names and shapes, and refuse weights that are not finite."""
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    unlike = [
        f"{name} is {tuple(tensors[name].shape)} and must be {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    said = [
        f"missing: {', '.join(missing)}" if missing else "",
        f"not part of such a network: {', '.join(extra)}" if extra else "",
        f"of another shape (inputs first): {'; '.join(unlike)}" if unlike else "",
    ]
    if any(said):
        hint = ""
        if any(".mlp.ln." in name for name in extra):
            hint = f" It has a LayerNorm inside the MLP: pass activation='{activation}_ln'."
        raise ValueError(
            f"the state dict does not fit a transformer of pairs. {'. '.join(filter(None, said))}."
            + hint
        )
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ValueError(
            f"all weights must be finite, but {', '.join(broken)} holds NaN or infinity (in "
            "float32): the training diverged, or the file is damaged. Take an earlier checkpoint."
        )
