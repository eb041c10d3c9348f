"""An ensemble is its members side by side."""

import pytest
import torch

from phasescope.models import PairEnsemble, PairTransformer


def member(seed: int, **settings: object) -> PairTransformer:
    sizes: dict[str, object] = {"d_model": 8, "n_heads": 2, "d_mlp": 12}
    generator = torch.Generator().manual_seed(seed)
    return PairTransformer(7, **(sizes | settings), generator=generator)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("init", ["progress_measures", "transformerlens", "pizza"])
def test_members_and_gradients_are_those_of_each_alone(init: str):
    members = [member(seed, init=init).double() for seed in range(3)]
    ensemble = PairEnsemble(members)
    pairs = torch.stack([members[0].all_pairs()[seed::3][:15] for seed in range(3)])
    ensemble(pairs).square().sum().backward()
    gradient = ensemble.vector.grad
    assert gradient is not None
    for i, model in enumerate(members):
        torch.testing.assert_close(ensemble(pairs)[i], model(pairs[i]), rtol=0, atol=1e-13)
        model(pairs[i]).square().sum().backward()
        own = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(gradient[i], torch.cat(own), rtol=1e-10, atol=1e-12)
        again = ensemble.member(i)
        assert again.shape == model.shape
        for (name, one), (_, other) in zip(
            again.named_parameters(), model.named_parameters(), strict=True
        ):
            assert torch.equal(one, other), name
            assert one.requires_grad == other.requires_grad


def test_the_members_that_were_passed_are_left_alone():
    model = member(0)
    before = model.W_U.detach().clone()
    ensemble = PairEnsemble([model, member(1)])
    with torch.no_grad():
        ensemble.vector.zero_()
    assert torch.equal(model.W_U, before)
    assert len(ensemble) == 2
    assert [name for name, _ in ensemble.named_parameters()] == ["vector"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.tensor([1, 2]), r"shape \(n, 2\) or \(3, n, 2\).*shape \(2,\)"),
        (torch.zeros(2, 5, 2, dtype=torch.int64), r"or \(3, n, 2\).*shape \(2, 5, 2\)"),
        (torch.zeros(5, 2), r"shape \(5, 2\) of torch.float32"),
        (torch.tensor([[0, 7]]), r"from 0 to 6, .* 1 of the 1 .* first pair 0 with \[0, 7\]"),
        (torch.tensor([[[0, 6]], [[0, 6]], [[-1, 6]]]), r"1 of the 3 .* pair 2, 0 with \[-1, 6\]"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"n_layers": 2}, {"init": "pizza"}])
@pytest.mark.usefixtures("unchecked_types")
def test_what_are_no_pairs_of_operands_is_refused(
    settings: dict[str, object], pairs: torch.Tensor, message: str
):
    ensemble = PairEnsemble([member(seed, **settings) for seed in range(3)])
    with pytest.raises(ValueError, match=message):
        ensemble(pairs)
    if (tables := ensemble.tables()) is not None:
        with pytest.raises(ValueError, match=message):
            ensemble.from_tables(tables, pairs)


def test_members_of_an_ensemble_in_float64_are_in_float64():
    ensemble = PairEnsemble([member(0), member(1)]).double()
    with torch.no_grad():
        ensemble.vector += 1e-12
    model = ensemble.member(1)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    own = torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])
    assert torch.equal(own, ensemble.vector[1])


def test_models_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="at least one model, but none"):
        PairEnsemble([])
    with pytest.raises(ValueError, match=r"model 1 differs from model 0: .*activation='gelu'"):
        PairEnsemble([member(0), member(1, activation="gelu")])
    with pytest.raises(ValueError, match=r"model 1 differs .*parameters"):
        PairEnsemble([member(0), member(1, d_mlp=13)])
