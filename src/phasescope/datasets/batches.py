"""Shuffled minibatches whose position can be saved and restored exactly."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


class ShuffledBatches:
    """Iterable of (inputs, labels) minibatches over several epochs, resumable at every batch.

    Each epoch goes through a fresh permutation; its last batch is smaller if `batch_size` does not
    divide the number of samples. The permutation of an epoch depends on `seed` and the epoch's
    number alone: `torch.randperm` with a generator seeded by the first 64-bit word of
    `numpy.random.SeedSequence([seed, epoch])`. The global random state is neither read nor changed.

    There is one position, not one per iterator. A batch counts as consumed as soon as it has been
    yielded, and `iter` goes on from the position: a loop that was broken off continues, and a
    second loop over finished batches yields nothing.

    Example:
        >>> batches = ShuffledBatches(torch.rand(5, 2), torch.arange(5), 2, seed=0, n_epochs=2)
        >>> len(batches), [len(y) for x, y in batches]
        (6, [2, 2, 1, 2, 2, 1])
        >>> batches.load_state_dict({**batches.state_dict(), "position": 5})
        >>> [len(y) for x, y in batches]
        [1]
    """

    def __init__(
        self,
        inputs: Shaped[Tensor, "n *features"],
        labels: Shaped[Tensor, "n *targets"],
        batch_size: int,
        *,
        seed: int,
        n_epochs: int,
    ) -> None:
        """Keep the data, uncopied, and start before the first batch.

        Args:
            inputs: Samples along the first axis, on any device.
            labels: Targets along the first axis, on the same device.
            batch_size: Samples per batch.
            seed: Seed of all permutations.
            n_epochs: Passes through the data.

        Raises:
            ValueError: If inputs and labels differ in length or are empty, or a number is too
                small.
        """
        if len(inputs) != len(labels) or len(inputs) == 0:
            raise ValueError(
                "inputs and labels must have the same number of samples, at least one, but "
                f"inputs has {len(inputs)} and labels has {len(labels)}."
            )
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("n_epochs", n_epochs, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, but it is {value}.")
        self.inputs = inputs
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.n_epochs = n_epochs
        self._position = 0
        self._shuffled: tuple[int, Tensor] | None = None  # epoch, its permutation

    def __len__(self) -> int:
        """Number of batches of all epochs, consumed or not."""
        return self.n_epochs * self._batches_per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from the position on."""
        while self._position < len(self):
            epoch, index = divmod(self._position, self._batches_per_epoch)
            rows = self._permutation(epoch)[index * self.batch_size :][: self.batch_size]
            self._position += 1  # before the yield: the consumer may save the state next
            yield self.inputs.index_select(0, rows), self.labels.index_select(0, rows)

    @property
    def position(self) -> int:
        """Number of batches consumed so far, over all epochs."""
        return self._position

    def state_dict(self) -> dict[str, int]:
        """The position, and what identifies the sequence of batches that it is a position in.

        Returns:
            Integers only, so it can be stored as JSON.

        Example:
            >>> batches = ShuffledBatches(torch.rand(5, 2), torch.arange(5), 2, seed=0, n_epochs=2)
            >>> _ = next(iter(batches))
            >>> batches.state_dict()
            {'position': 1, 'seed': 0, 'batch_size': 2, 'n_samples': 5}
        """
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved position: the next batch is the one that would have come next there.

        The number of epochs may differ, so that a finished training can be prolonged. That the
        samples themselves are the same is not checked, only their number.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If the state belongs to another sequence of batches, or lies beyond the end.

        Example:
            >>> first, second = (
            ...     ShuffledBatches(torch.rand(5, 2), torch.arange(5), 2, seed=0, n_epochs=2)
            ...     for _ in range(2)
            ... )
            >>> _ = next(iter(first))
            >>> second.load_state_dict(first.state_dict())
            >>> torch.equal(next(iter(first))[1], next(iter(second))[1])
            True
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"the saved data position must come from batches with {name}={value}, but it "
                    f"has {name}={state.get(name)}. Build the batches as they were when the state "
                    "was saved."
                )
        position = state.get("position")
        if position is None or not 0 <= position <= len(self):
            raise ValueError(
                f"the saved data position must lie between 0 and {len(self)}, the number of "
                f"batches, but it is {position}. Build the batches with enough epochs."
            )
        self._position = int(position)

    @property
    def _batches_per_epoch(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "n_samples": len(self.inputs),
        }

    def _permutation(self, epoch: int) -> Int64[Tensor, " n"]:
        if self._shuffled is None or self._shuffled[0] != epoch:
            word = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(word))
            order = torch.randperm(len(self.inputs), generator=generator)
            self._shuffled = epoch, order.to(self.inputs.device)
        return self._shuffled[1]


class RandomFlips:
    """Batches of images, half of which are mirrored left to right, drawn anew for every batch.

    Which ones depends on the seed and the number of the batch alone, so that a position restored
    in the batches restores the flips: give this to a `Recorder` in place of the batches.

    Example:
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
        >>> batches = RandomFlips(ShuffledBatches(images, labels, 2, seed=0, n_epochs=1))
        >>> [tuple(x.shape) for x, y in batches]
        [(2, 3, 8, 8), (2, 3, 8, 8)]
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        """Flip what these batches yield.

        Args:
            batches: Of images, with their width along the last axis.
        """
        self.batches = batches

    def __len__(self) -> int:
        """Number of batches of all epochs, consumed or not."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from their position on."""
        for x, y in self.batches:
            sequence = np.random.SeedSequence([self.batches.seed, self.batches.position, 1])
            word = int(sequence.generate_state(1, np.uint64)[0])
            draws = torch.rand(len(x), generator=torch.Generator().manual_seed(word)).to(x.device)
            mirrored = (draws < 0.5).view(-1, *[1] * (x.ndim - 1))
            yield torch.where(mirrored, x.flip(-1), x), y

    def state_dict(self) -> dict[str, int]:
        """That of the batches.

        Returns:
            Integers only.
        """
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved position of the batches.

        Args:
            state: What `state_dict` returned.
        """
        self.batches.load_state_dict(state)
