"""Whitened trajectories: unit noise, planted strengths, the level of what is computed on them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.analysis.edges import edge_p_values, noise_scale
from phasescope.analysis.gram import gram
from phasescope.analysis.located import located_components
from phasescope.analysis.spectrum import spectrum
from phasescope.analysis.whitening import whitened_gram


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unequal(T: int, P: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with steps and parameters of unequal scale, and the scales' product."""
    sigma = torch.exp(noise(P, seed=seed)) * torch.linspace(2, 0.5, T)[:, None]
    return noise(T, P, seed=seed + 1) * sigma, sigma


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", ["none", "steps"])
def test_noise_of_any_scale_has_variance_one_and_no_components(center: str, normalize: bool):
    T, P = 80, 6000
    A, _ = unequal(T, P, 0)
    A[:, 5] = 3.0 if center == "steps" and not normalize else 0.0  # never changes
    plain = spectrum(gram(A), center=center, normalize=normalize)
    g = whitened_gram(A, plain, 0)
    white = spectrum(g, center=center)
    assert g.n_columns == P - 1
    assert noise_scale(white) == pytest.approx(1, rel=0.01)
    n = T - (center == "steps")
    torch.testing.assert_close(
        white.norms, torch.full((T,), math.sqrt(P)).double(), rtol=0.03, atol=0
    )
    assert float(white.S[0]) == pytest.approx(math.sqrt(P) + math.sqrt(n), rel=0.01)
    assert located_components(white, 1.0).n_detected == 0
    # Without whitening the same noise is full of components.
    assert located_components(plain).n_detected > 5


def test_strength_and_overlap_are_those_of_the_whitened_signal():
    T, P = 60, 6000
    A, sigma = unequal(T, P, 3)
    u = torch.nn.functional.normalize(noise(T, seed=8), dim=0)
    v = torch.nn.functional.normalize(noise(P, seed=9), dim=0)
    for y in (1.0, 3.0):
        signal = y * math.sqrt(P) * torch.outer(u, v) * sigma
        plain = spectrum(gram(A + signal), center="steps", normalize=True)
        white = spectrum(whitened_gram(A + signal, plain, 1), center="steps")
        found = located_components(white, 1.0)
        assert found.n_detected == 1
        assert float(found.strength[0]) == pytest.approx(y, rel=0.08)
        overlap = float((white.time_vectors[:, 0] @ (u - u.mean()).double()) ** 2)
        assert overlap == pytest.approx(float(found.time_overlap[0]), abs=0.05)


def test_p_values_of_whitened_noise_are_not_too_small():
    hits = 0
    for seed in range(40):
        A, _ = unequal(50, 1500, 10 * seed)
        plain = spectrum(gram(A), center="steps", normalize=True)
        white = spectrum(whitened_gram(A, plain, 0), center="steps", time_vectors=False)
        hits += float(edge_p_values(white, 1.0)[0]) < 0.05
    assert hits <= 6  # of 40 at .05: more has probability .005


def test_a_stream_and_a_selection_of_steps_give_what_a_tensor_gives(tmp_path: Path):
    A, _ = unequal(20, 9000, 5)
    np.save(tmp_path / "A.npy", A.numpy())
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    plain = spectrum(gram(A), center="steps", normalize=True, steps=slice(3, 17))
    part = spectrum(gram(A[3:17]), center="steps", normalize=True)
    seen: list[float] = []
    found = whitened_gram(mapped, plain, 1, memory=9_000_000, progress=seen.append)
    expected = whitened_gram(A[3:17], part, 1)
    torch.testing.assert_close(found.K, expected.K, rtol=1e-5, atol=1e-2)
    assert found.steps.tolist() == list(range(3, 17))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_what_cannot_be_whitened_is_refused():
    A = noise(6, 50)
    plain = spectrum(gram(A), center="steps")
    with pytest.raises(
        ValueError, match="at least two steps beyond the k=4 components and the mean"
    ):
        whitened_gram(A, plain, 4)
    with pytest.raises(ValueError, match="centred over 'steps' or not at all"):
        whitened_gram(A, spectrum(gram(A), center="both"), 0)
    with pytest.raises(ValueError, match="with 50 columns, but it has 40"):
        whitened_gram(A[:, :40], plain, 0)
    with pytest.raises(ValueError, match="at least one parameter must change"):
        whitened_gram(torch.ones(6, 50), spectrum(gram(torch.ones(6, 50)), center="steps"), 0)
    with pytest.raises(ValueError, match="singular values only"):
        whitened_gram(A, spectrum(gram(A), time_vectors=False), 1)


def test_narrow_floats_are_whitened_like_their_values():
    A = torch.randn(20, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = whitened_gram(A, spectrum(gram(A), center="steps"), 0)
    expected = whitened_gram(A.float(), spectrum(gram(A.float()), center="steps"), 0)
    torch.testing.assert_close(found.K, expected.K)
