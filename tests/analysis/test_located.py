"""Overlaps of components with their signal: the published formulas, checked by planting."""

import math

import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.located import located_components
from phasescope.analysis.spectrum import parameter_vectors, spectrum


def planted(y: float, T: int, P: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A component of strength y in noise of variance 1, with its two unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.nn.functional.normalize(torch.randn(T, generator=generator), dim=0)
    v = torch.nn.functional.normalize(torch.randn(P, generator=generator), dim=0)
    A = torch.randn(T, P, generator=generator)
    return A + y * math.sqrt(P) * torch.outer(u, v), u, v


@pytest.mark.parametrize(
    ("y", "s", "time", "parameter"),
    # beta = .01; singular values for P = 20,000.
    [(0.45, 158.9, 0.721, 0.127), (1.0, 201.0, 0.980, 0.495), (2.0, 316.6, 0.997, 0.799)],
)
def test_overlaps_are_those_of_the_theory_and_of_planted_components(
    y: float, s: float, time: float, parameter: float
):
    """Acceptance test 5: within 5 %."""
    T, P = 60, 6000
    values, times, parameters = [], [], []
    for seed in range(4):
        A, u, v = planted(y, T, P, seed)
        found = spectrum(gram(A))
        values.append(float(found.S[0]) * math.sqrt(20_000 / P))
        times.append(float((found.time_vectors[:, 0] @ u.double()) ** 2))
        parameters.append(float((parameter_vectors(A, found, 1)[0] @ v) ** 2))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    assert mean(values) == pytest.approx(s, rel=0.05)
    assert mean(times) == pytest.approx(time, rel=0.05)
    assert mean(parameters) == pytest.approx(parameter, rel=0.05, abs=0.02)


@pytest.mark.parametrize("beta", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("y", [1.05, 1.5, 4.0])
def test_singular_values_are_solved_for_the_strength(beta: float, y: float):
    P, sigma = 200, 0.7
    T = round(beta * P)
    s = sigma * math.sqrt(P) * math.sqrt((1 + y**2) * (beta + y**2)) / y
    A = torch.zeros(T, P, dtype=torch.float64)
    A[0, 0] = s
    # Just beyond the edge (y = 1.05 at beta = 1) noise may reach as far: any level but the usual.
    found = located_components(spectrum(gram(A)), sigma, level=0.5)
    assert float(found.strength[0]) == pytest.approx(y, rel=1e-9)
    expected = 1 - beta * (1 + y**2) / (y**2 * (y**2 + beta))
    assert float(found.time_overlap[0]) == pytest.approx(expected, rel=1e-9)
    expected = 1 - (beta + y**2) / (y**2 * (1 + y**2))
    assert float(found.parameter_overlap[0]) == pytest.approx(expected, rel=1e-9)
    assert (found.n_detected, found.n_located) == (1, 1)
    assert not found.strength[1:].any()


def test_a_component_is_detected_long_before_it_is_located():
    A, _, _ = planted(0.6, 60, 6000, seed=1)
    found = located_components(spectrum(gram(A), center="steps"))
    assert (found.n_detected, found.n_located) == (1, 0)
    assert found.time_overlap[0] > 0.8
    assert found.parameter_overlap[0] < 0.4
    assert found.sigma == pytest.approx(1, rel=0.02)


def test_at_strength_one_half_of_a_parameter_vector_is_signal():
    # beta -> 0: the threshold of Gavish and Donoho is the point y = 1.
    from phasescope.analysis.edges import gavish_donoho

    P = 10**6
    A = torch.zeros(2, P, dtype=torch.float64)
    A[0, 0] = gavish_donoho(spectrum(gram(A + 1)), 1.0)
    found = located_components(spectrum(gram(A)), 1.0)
    assert float(found.strength[0]) == pytest.approx(1, abs=2e-3)
    assert float(found.parameter_overlap[0]) == pytest.approx(0.5, abs=2e-3)


def test_the_noise_scale_must_be_known_or_to_be_found():
    found = spectrum(gram(torch.outer(torch.ones(5), torch.ones(50))))
    with pytest.raises(ValueError, match="median singular value above rounding"):
        located_components(found)
    with pytest.raises(ValueError, match="sigma must be a standard deviation above 0"):
        located_components(found, -1.0)


def test_the_largest_value_of_noise_is_beyond_the_edge_more_often_than_it_is_detected():
    beyond, detected = 0, 0
    for seed in range(100):
        A = torch.randn(12, 400, generator=torch.Generator().manual_seed(seed))
        found = located_components(spectrum(gram(A), time_vectors=False), 1.0)
        beyond += bool(found.strength[0] > 0)
        detected += found.n_detected > 0
        assert not bool(found.located.any())
    assert 8 <= beyond <= 32  # probability .17 in the limit
    assert detected <= 11  # .05: more has probability .004
    with pytest.raises(ValueError, match=r"level must be a probability such as \.05, but 5"):
        located_components(spectrum(gram(A)), 1.0, level=5.0)
