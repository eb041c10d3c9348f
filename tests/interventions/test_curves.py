"""Curves meet their ends, follow their formulas, and find a way around a barrier."""

import pytest
import torch
from torch import Tensor

import phasescope as ps
from phasescope.interventions import Curve, train_curve


def ring(state: dict[str, Tensor], batch: object = None) -> Tensor:
    return (state["w"].norm() - 1).square()


ENDS = tuple({"w": torch.tensor([x, 0.05], dtype=torch.float64)} for x in (-0.99875, 0.99875))


@pytest.mark.parametrize("kind", ["bezier", "chain"])
@pytest.mark.parametrize("n_bends", [3, 5])
def test_a_trained_curve_goes_around_a_barrier_and_meets_its_ends(kind, n_bends: int):
    trained = train_curve(
        ring, *ENDS, [None] * 800, n_steps=800, kind=kind, n_bends=n_bends, lr=0.1
    )
    for t, end in zip((0.0, 1.0), ENDS, strict=True):
        assert (trained.curve(t)["w"] - end["w"]).abs().max() <= 1e-6

    def measure(state: dict[str, Tensor]) -> dict[str, float]:
        return {"loss": ring(state).item()}

    straight = ps.path_values(measure, ps.linear_path(*ENDS)).barrier()
    assert straight > 0.85
    assert ps.path_values(measure, trained.curve, n_points=61).barrier() < 0.2 * straight


def test_bezier_and_chain_are_their_formulas():
    bends = [{"w": torch.tensor([float(i * i)], dtype=torch.float64)} for i in range(4)]
    bezier, chain = Curve(bends, "bezier"), Curve(bends, "chain")
    t = 0.3
    wanted = 3 * t * (1 - t) ** 2 * 1 + 3 * t**2 * (1 - t) * 4 + t**3 * 9
    assert bezier(t)["w"].item() == pytest.approx(wanted)
    assert chain(0.5)["w"].item() == pytest.approx(2.5)
    assert [chain(i / 3)["w"].item() for i in range(4)] == pytest.approx([0, 1, 4, 9])
    for curve in (bezier, chain):
        assert sum(curve.coefficients(0.77)) == pytest.approx(1)


def test_only_what_is_to_be_trained_moves():
    ends = [{"w": e["w"], "b": e["w"] * 2, "n": torch.tensor(1)} for e in ENDS]
    trained = train_curve(ring, *ends, [None] * 20, n_steps=20, trained=["w"], lr=0.1).curve
    assert torch.equal(trained.bends[1]["b"], torch.lerp(ends[0]["b"], ends[1]["b"], 0.5))
    assert not torch.equal(trained.bends[1]["w"], torch.lerp(ends[0]["w"], ends[1]["w"], 0.5))


def test_weight_decay_is_that_of_the_point_on_the_curve():
    """Without a loss, a step shrinks the middle bend by lr λ c(t) θ(t)."""
    ends = [{"w": torch.tensor([x], dtype=torch.float64)} for x in (1.0, 3.0)]
    trained = train_curve(
        lambda s, b: 0 * s["w"].sum(), *ends, [None], n_steps=1, lr=0.1, weight_decay=0.5
    )
    t = trained.t.item()
    point = (1 - t) ** 2 * 1 + 2 * t * (1 - t) * 2 + t**2 * 3
    wanted = 2 - 0.1 * 0.5 * 2 * t * (1 - t) * point
    assert trained.curve.bends[1]["w"].item() == pytest.approx(wanted)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="at least 3 bends are required"):
        train_curve(ring, *ENDS, [], n_steps=1, n_bends=2)
    with pytest.raises(ValueError, match="5 batches are required, but there are 2"):
        train_curve(ring, *ENDS, [None] * 2, n_steps=5)
    with pytest.raises(ValueError, match=r"finite loss is required, but at step 0, t = 0\.\d+"):
        train_curve(lambda s, b: s["w"].sum() / 0, *ENDS, [None], n_steps=1)
    with pytest.raises(ValueError, match="at least two bends of a 'bezier' or 'chain'"):
        Curve([ENDS[0]], "bezier")


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_trained_is_said():
    with pytest.raises(ValueError, match=r"trained must name .* but \['v'\] are not among \['w'\]"):
        train_curve(ring, *ENDS, [None], n_steps=1, trained=["v"])
    with pytest.raises(ValueError, match="at least one step is required, but n_steps is 0"):
        train_curve(ring, *ENDS, [None], n_steps=0)
    with pytest.raises(TypeError, match=r"at step 0, t = \S+, it is float\. Take the mean"):
        train_curve(lambda s, b: 0.1, *ENDS, [None], n_steps=1)
    with pytest.raises(TypeError, match=r"it is a tensor of shape \(2,\)\. Take the mean"):
        train_curve(lambda s, b: s["w"].expand(2), *ENDS, [None], n_steps=1)


def test_running_statistics_are_not_trained_by_default():
    ends = [{"w": torch.tensor([x]), "0.running_mean": torch.tensor([x])} for x in (0.0, 1.0)]
    curve = train_curve(
        lambda s, b: (s["w"] + s["0.running_mean"].detach()).square().sum(),
        *ends,
        [None],
        n_steps=1,
    ).curve
    assert curve.bends[1]["0.running_mean"].item() == 0.5
    assert curve.bends[1]["w"].item() != 0.5
    assert "tensor" not in repr(curve)
