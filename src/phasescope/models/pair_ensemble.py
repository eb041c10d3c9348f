"""Many transformers of pairs as one: a leading axis of seeds on all weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phasescope.models.operands import of_pairs
from phasescope.models.pair_forward import logits_from_tables, pair_logits, pair_tables
from phasescope.models.pair_transformer import PairTransformer


class PairEnsemble(nn.Module):
    """Models of one shape evaluated and trained as one batch.

    All their trained weights are one parameter ``vector`` of shape [seeds, weights], in the order
    of `named_parameters` of a member.

    Args:
        members: Models of equal shape; they are copied.

    Raises:
        ValueError: There are none, or their shapes differ.

    Example:
        >>> members = [PairTransformer(7, d_model=8, n_heads=2, d_mlp=16) for _ in range(3)]
        >>> ensemble = PairEnsemble(members)
        >>> ensemble(torch.tensor([[1, 2], [3, 4]])).shape
        torch.Size([3, 2, 8])
        >>> torch.equal(ensemble.member(2).W_U, members[2].W_U)
        True
    """

    def __init__(self, members: Sequence[PairTransformer]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one model, but none arrived.")
        first = members[0]
        shapes = [_shapes(model) for model in members]
        for i, (model, own) in enumerate(zip(members, shapes, strict=True)):
            if model.shape != first.shape or own != shapes[0]:
                raise ValueError(
                    "all models of an ensemble must have one shape, but model "
                    f"{i} differs from model 0: {model.shape} against {first.shape}, parameters "
                    f"{own} against {shapes[0]}."
                )
        self.shape = first.shape
        self._template = [copy.deepcopy(first)]  # in a list, so that it is no submodule
        trained = {name for name, p in first.named_parameters() if p.requires_grad}
        stacked = {
            name: torch.stack([dict(m.named_parameters())[name].detach() for m in members])
            for name, _ in first.named_parameters()
        }
        self._trained = {name: t.shape[1:] for name, t in stacked.items() if name in trained}
        flat = [stacked[name].flatten(1) for name in self._trained]
        self.vector = nn.Parameter(torch.cat(flat, 1))
        self._frozen = [name for name in stacked if name not in trained]
        for i, name in enumerate(self._frozen):
            self.register_buffer(f"frozen{i}", stacked[name])

    def forward(self, pairs: Int64[Tensor, "*own n 2"]) -> Float[Tensor, "seeds n outputs"]:
        """Logits of every member at the last position.

        Args:
            pairs: Tokens a and b, the same for all members, or with an axis of seeds in front.

        Returns:
            Logits, in nats.

        Raises:
            ValueError: The pairs have another shape or type, or (on a CPU) a token that is none.
        """

        def logits() -> Tensor:
            return pair_logits(self.weights(), pairs, self.shape)

        return of_pairs(logits, pairs, self.shape.n_tokens, len(self))

    def tables(self) -> dict[str, Tensor] | None:
        """What `forward` needs of the present weights alone; None if there is no such part."""
        return pair_tables(self.weights(), self.shape)

    def from_tables(
        self, tables: dict[str, Tensor], pairs: Int64[Tensor, "*own n 2"]
    ) -> Float[Tensor, "seeds n outputs"]:
        """What `forward` returns, from `tables`.

        Args:
            tables: What `tables` has returned.
            pairs: As for `forward`.

        Raises:
            ValueError: As of `forward`.
        """

        def logits() -> Tensor:
            return logits_from_tables(tables, pairs, self.shape)

        return of_pairs(logits, pairs, self.shape.n_tokens, len(self))

    def weights(self) -> dict[str, Tensor]:
        """All weights by name, with the axis of seeds in front; views of `vector`."""
        sizes = [shape.numel() for shape in self._trained.values()]
        parts = self.vector.split(sizes, 1)
        found = {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._trained.items(), parts, strict=True)
        }
        return found | {name: self.get_buffer(f"frozen{i}") for i, name in enumerate(self._frozen)}

    def member(self, index: int) -> PairTransformer:
        """A copy of one member with its present weights.

        Args:
            index: Which one.
        """
        model = copy.deepcopy(self._template[0]).to(self.vector.dtype)
        values = {name: value[index].detach() for name, value in self.weights().items()}
        model.load_state_dict({name: value.cpu() for name, value in values.items()})
        return model

    def __len__(self) -> int:
        """Number of members."""
        return len(self.vector)


def _shapes(model: PairTransformer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}
