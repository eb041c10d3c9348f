import pytest
import torch

from phasescope.datasets import TokenMixture


def draw(seed: int = 0, n: int = 400, **settings: float) -> tuple[TokenMixture, torch.Tensor]:
    mixture = TokenMixture(seed=0, **settings)  # pyright: ignore
    return mixture, mixture.sample(n, torch.Generator().manual_seed(seed)).tokens


def test_repeats_are_what_a_copier_predicts():
    mixture = TokenMixture(seed=0)
    batch = mixture.sample(300, torch.Generator().manual_seed(0))
    kinds = batch.repeats.any(1)
    assert 0.4 < float(kinds.double().mean()) < 0.6
    for tokens, repeats in zip(batch.tokens[kinds], batch.repeats[kinds], strict=True):
        length = int(repeats.int().argmax())
        assert 8 <= length <= 24
        assert torch.equal(tokens[length:], tokens[:-length])
        assert bool(repeats[length:].all())
    assert not bool(batch.repeats[~kinds].any())


def test_chains_follow_the_bigrams():
    mixture, tokens = draw(bigram_share=1.0, d_vocab=8, n=3_000)
    counts = torch.zeros(8, 8)
    pairs = (tokens[:, :-1].flatten(), tokens[:, 1:].flatten())
    counts.index_put_(pairs, torch.ones(len(pairs[0])), accumulate=True)
    seen = counts.sum(1) > 500
    found = counts[seen] / counts[seen].sum(1, keepdim=True)
    assert float((found - mixture.bigrams[seen]).abs().max()) < 0.06
    assert float(counts[mixture.bigrams < 1e-12].sum()) == 0


def test_the_same_generator_draws_the_same_sequences_and_bigrams_belong_to_the_seed():
    assert torch.equal(draw()[1], draw()[1])
    assert not torch.equal(draw(0)[1], draw(1)[1])
    assert not torch.equal(TokenMixture(seed=0).bigrams, TokenMixture(seed=1).bigrams)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="longest=40 and n_ctx=64"):
        TokenMixture(seed=0, longest=40)
    with pytest.raises(ValueError, match="concentration must be positive"):
        TokenMixture(seed=0, concentration=0.0)
