"""Token sequences on which induction heads form: repeated segments among Markov chains.

Letters: b sequences, t positions, v tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sequences, and where they can be predicted from the context."""

    tokens: Int64[Tensor, "b t"]
    """Token numbers."""
    repeats: Bool[Tensor, "b t"]
    """Whether this token repeats the one a segment before: what a perfect copier predicts."""


class TokenMixture:
    """Sequences of two kinds: a Markov chain of fixed bigrams, and one random segment repeated.

    Bigrams can be learned by the embeddings alone; segments are drawn anew for every sequence, so
    predicting their repetitions takes a look at the context. The more bigrams, the later induction
    heads form.

    Args:
        d_vocab: Tokens.
        n_ctx: Length of the sequences.
        bigram_share: Share of Markov chains.
        concentration: Of the Dirichlet distribution that every row of the bigram matrix is drawn
            from; small values make few successors likely.
        shortest: Shortest segment.
        longest: Longest segment, at most half of the length.
        seed: Of the bigrams; sequences are drawn with generators of their own.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> mixture = TokenMixture(bigram_share=0.0, shortest=3, longest=3, n_ctx=8, seed=0)
        >>> batch = mixture.sample(1, torch.Generator().manual_seed(0))
        >>> bool((batch.tokens[0, 3:6] == batch.tokens[0, :3]).all()), batch.repeats[0].tolist()
        (True, [False, False, False, True, True, True, True, True])
    """

    def __init__(
        self,
        *,
        d_vocab: int = 64,
        n_ctx: int = 64,
        bigram_share: float = 0.5,
        concentration: float = 0.05,
        shortest: int = 8,
        longest: int = 24,
        seed: int,
    ) -> None:
        if not 0 <= bigram_share <= 1 or not 1 <= shortest <= longest <= n_ctx // 2:
            raise ValueError(
                "the share of bigrams must lie in 0 ... 1 and segments between 1 and half of the "
                f"length, but bigram_share={bigram_share}, shortest={shortest}, longest={longest} "
                f"and n_ctx={n_ctx}."
            )
        if not concentration > 0 or d_vocab < 2:
            raise ValueError(
                f"concentration must be positive and d_vocab at least 2, but they are "
                f"{concentration} and {d_vocab}."
            )
        self.d_vocab, self.n_ctx = d_vocab, n_ctx
        self.bigram_share = bigram_share
        self.shortest, self.longest = shortest, longest
        import numpy as np

        generator = np.random.default_rng(seed)
        rows = generator.dirichlet(np.full(d_vocab, concentration), size=d_vocab)
        self.bigrams: Float64[Tensor, "v v"] = torch.from_numpy(rows)
        """Probability of the column's token after the row's."""
        self._cumulative = self.bigrams.cumsum(1)
        self._cumulative[:, -1] = 1.0

    def sample(self, n: int, generator: torch.Generator) -> TokenBatch:
        """Draw sequences; each is a chain with probability `bigram_share`."""
        chains = torch.rand(n, generator=generator) < self.bigram_share
        tokens, repeats = self._segments(n, generator)
        tokens = torch.where(chains[:, None], self._chains(n, generator), tokens)
        return TokenBatch(tokens, repeats & ~chains[:, None])

    def _chains(self, n: int, generator: torch.Generator) -> Tensor:
        tokens = torch.empty(n, self.n_ctx, dtype=torch.int64)
        tokens[:, 0] = torch.randint(0, self.d_vocab, (n,), generator=generator)
        u = torch.rand(n, self.n_ctx, generator=generator, dtype=torch.float64)
        for t in range(1, self.n_ctx):
            rows = self._cumulative[tokens[:, t - 1]]
            tokens[:, t] = (rows <= u[:, t : t + 1]).sum(1)
        return tokens

    def _segments(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        lengths = torch.randint(self.shortest, self.longest + 1, (n, 1), generator=generator)
        segments = torch.randint(0, self.d_vocab, (n, self.longest), generator=generator)
        places = torch.arange(self.n_ctx)
        return segments.gather(1, places % lengths), places >= lengths
