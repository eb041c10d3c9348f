import numpy as np
import pytest
import torch
from torch import nn

from phasescope.analysis.gradient_statistics import gradient_statistics
from phasescope.analysis.half_batches import half_batch_noise
from phasescope.components import Subspace
from phasescope.parameters import Component


class Recorded:
    def __init__(self, values: torch.Tensor, steps: list[int]) -> None:
        self.values, self.steps = values, np.array(steps)
        self.shape, self.dtype = tuple(values.shape), values.dtype

    def __getitem__(self, key: object) -> np.ndarray:
        return self.values[key].numpy()


@pytest.fixture(scope="module")
def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("gradients", "weights", "updates", "decay")
    return {name: torch.randn(9, 300, generator=generator).double() for name in names}


def test_every_statistic_equals_its_definition(matrices: dict[str, torch.Tensor]):
    parts = {
        "a": Component("a", ((0, 100), (120, 200))),
        "b": Subspace.spanned_by("b", matrices["weights"][:3]),
    }
    g, rest = matrices["gradients"], {k: v for k, v in matrices.items() if k != "gradients"}
    found = gradient_statistics(g, **rest, components=parts, memory=200_000)
    for i, part in enumerate(parts.values()):
        x = {
            name: A @ part.basis.T if isinstance(part, Subspace) else A[:, part.columns]
            for name, A in matrices.items()
        }
        g, w, u, d = (x[name] for name in ("gradients", "weights", "updates", "decay"))
        expected = {
            "gradient_norm": g.norm(dim=1),
            "gradient_turn": torch.cosine_similarity(g[:-1], g[1:], dim=1),
            "weight_norm": w.norm(dim=1),
            "gradient_weight_cosine": torch.cosine_similarity(g, w, dim=1),
            "update_norm": u.norm(dim=1),
            "descent": torch.cosine_similarity(u, -g, dim=1),
            "decay_norm": d.norm(dim=1),
            "optimizer_norm": (u - d).norm(dim=1),
            "angular_gradient": g.norm(dim=1) * w.norm(dim=1),
            "relative_gradient": g.norm(dim=1) / w.norm(dim=1),
            "gradient_per_parameter": g.square().mean(1).sqrt(),
        }
        for name, values in expected.items():
            torch.testing.assert_close(getattr(found, name)[i], values, rtol=1e-11, atol=1e-12)


def test_only_common_steps_are_used(matrices: dict[str, torch.Tensor]):
    g, w = matrices["gradients"], matrices["weights"]
    found = gradient_statistics(Recorded(g, list(range(9))), weights=Recorded(w[:4], [1, 2, 6, 40]))
    assert found.steps.tolist() == [1, 2, 6]
    torch.testing.assert_close(found.gradient_norm[0], g[[1, 2, 6]].norm(dim=1))
    torch.testing.assert_close(found.weight_norm[0], w[:3].norm(dim=1))


def test_scale_invariant_tensors_have_no_radial_gradient_and_an_angular_one_that_is_invariant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()
    x, y = torch.randn(40, 5).double(), torch.randint(0, 3, (40,))
    rows: dict[str, list[torch.Tensor]] = {"g": [], "w": []}
    model[1].eps = 1e-30
    for scale in (1.0, 3.0):
        with torch.no_grad():
            model[0].weight *= scale
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        rows["g"].append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        rows["w"].append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
    parts = {"conv": Component("conv", ((0, 35),)), "last": Component("last", ((49, 70),))}
    found = gradient_statistics(
        torch.stack(rows["g"]), weights=torch.stack(rows["w"]), components=parts
    )
    assert found.gradient_weight_cosine is not None
    assert float(found.gradient_weight_cosine[0].abs().max()) < 1e-12
    assert float(found.gradient_weight_cosine[1].abs().min()) > 1e-3
    ratio = found.gradient_norm[0, 0] / found.gradient_norm[0, 1]
    assert float(ratio) == pytest.approx(3.0, rel=1e-10)
    angular = found.angular_gradient[0]
    assert float(angular[0]) == pytest.approx(float(angular[1]), rel=1e-10)


def test_bad_input_is_named(matrices: dict[str, torch.Tensor]):
    g, w = matrices["gradients"], matrices["weights"]
    with pytest.raises(ValueError, match="updates= is missing"):
        gradient_statistics(g, decay=w)
    with pytest.raises(ValueError, match="same columns, but they have"):
        gradient_statistics(g, weights=w[:, :10])
    with pytest.raises(ValueError, match=r"steps in common, but there is none: .*'20 \.\.\. 21'"):
        gradient_statistics(Recorded(g[:2], [0, 1]), weights=Recorded(w[:2], [20, 21]))
    with pytest.raises(ValueError, match="Pass weights="):
        _ = gradient_statistics(g).angular_gradient


def test_half_batches_estimate_signal_and_noise_without_bias():
    generator = torch.Generator().manual_seed(0)
    mean, sigma, n = torch.full((50,), 0.3), 2.0, 16  # examples per half
    halves = mean + sigma / n**0.5 * torch.randn(2, 20_000, 50, generator=generator)
    parts = {"half": Component("half", ((0, 25),)), "all": Component("all", ((0, 50),))}
    found = half_batch_noise(halves[0], halves[1], components=parts)
    whole = halves.double().mean(0)
    torch.testing.assert_close((found.signal + found.noise)[1], whole.square().sum(1))
    signal, noise = 25 * 0.09, 25 * sigma**2 / (2 * n)
    assert float(found.signal[0].mean()) == pytest.approx(signal, rel=0.02)
    assert float(found.noise[0].mean()) == pytest.approx(noise, rel=0.02)
    ratios = found.signal_to_noise(5_000)
    assert ratios.shape == (2, 4)
    torch.testing.assert_close(
        ratios, torch.full((2, 4), signal / noise).double(), rtol=0.05, atol=0
    )


def test_half_batches_check_their_input(unchecked_types: None):
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 3\) arrived"):
        half_batch_noise(torch.ones(1, 2), torch.ones(1, 3))
    found = half_batch_noise(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="between 1 and the 3 steps, but it is 4"):
        found.signal_to_noise(4)


@pytest.mark.parametrize("name", ["weights", "updates", "decay"])
def test_values_that_are_not_finite_are_refused_in_every_matrix(name: str):
    given = {n: torch.ones(2, 3) for n in ("gradients", "weights", "updates", "decay")}
    given[name][1, 0] = torch.nan
    with pytest.raises(ValueError, match="every value must be finite, but 'full' holds"):
        gradient_statistics(given.pop("gradients"), **given)
