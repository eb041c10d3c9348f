"""Figures of nulls: what is drawn, beside what, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

import phasescope as ps
from figures.captions import check_house_rules

figures = ps.figures
OPTIONS = {"center": "steps", "normalize": True}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    return noise(30, 400) + 8 * torch.outer(torch.linspace(1, -1, 30), noise(400, seed=1)) / 10


@pytest.fixture(scope="module")
def spectrum(data: torch.Tensor) -> ps.Spectrum:
    return ps.spectrum(ps.gram(data), **OPTIONS)


@pytest.fixture(scope="module")
def flips(data: torch.Tensor) -> ps.FlipRankTest:
    return ps.flip_rank_test(data, **OPTIONS)


@pytest.fixture(scope="module")
def path() -> tuple[ps.Spectrum, ps.WalkNull]:
    g = ps.gram(noise(30, 200, seed=4).cumsum(0))
    return ps.spectrum(g, center="steps"), ps.path_walk_null(g, n_draws=39)


def test_scree_draws_every_kind_of_null_beside_the_data(data, spectrum, flips):
    frozen = ps.compare_with_frozen(ps.gram(data), ps.gram(noise(60, 400, seed=2)), **OPTIONS)
    edges = ps.noise_edges(ps.parameter_variances(data, spectrum), 29)
    figure = figures.scree(spectrum, [ps.norm_null(spectrum), flips, frozen], edges=edges)
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn) == [
        "data", "norm null", f"random signs: rank {flips.rank}", "threshold of the flip test",
        "frozen weights", "upper edge of independent noise", "lower edge of independent noise",
    ]  # fmt: skip
    largest = float(spectrum.S[0])
    signs = drawn[f"random signs: rank {flips.rank}"].y
    np.testing.assert_allclose(signs[:29], flips.S[:29].numpy() / largest)
    np.testing.assert_allclose(
        drawn["threshold of the flip test"].y, flips.thresholds.numpy() / largest
    )
    np.testing.assert_allclose(drawn["frozen weights"].y[:29], (frozen.S / frozen.S[0])[:29])
    assert drawn["upper edge of independent noise"].y[0] == pytest.approx(edges.upper / largest)
    assert len({trace.marker.color for trace in figure.data if trace.marker.color}) == 4
    text = figure.layout.annotations[0].text
    assert text.startswith("<b>5%</b>: 29 (norm null 29, frozen weights ")
    for words in ("random signs: the median over copies", "frozen weights: gradients at weights"):
        assert words in figure.layout.meta["seen"]


def test_scree_takes_a_random_walk(path):
    found, null = path
    figure = figures.scree(found, null)
    np.testing.assert_allclose(figure.data[1].y[:29], (null.S / null.S[0])[:29])
    assert figure.layout.annotations[1].text == "<b>10%</b>: 10 (null 10)"


def test_scree_refuses_nulls_and_edges_of_something_else(data, spectrum, flips, path):
    raw = ps.spectrum(ps.gram(data))
    with pytest.raises(ValueError, match=r"normalize is False .* but True.*flip_rank_test\(A"):
        figures.scree(raw, [ps.norm_null(raw), flips])
    with pytest.raises(ValueError, match=r"center is 'none' .* but 'steps'.*path_walk_null\(gram"):
        figures.scree(raw, path[1])
    equal = ps.flip_rank_test(data * torch.linspace(1, 9, 400), equalize=True, **OPTIONS)
    with pytest.raises(ValueError, match="equalize=True is one of another matrix"):
        figures.scree(spectrum, equal)
    with pytest.raises(ValueError, match="noise edges of 29 or 30 steps and 400 parameters, but"):
        figures.scree(spectrum, edges=ps.noise_edges(torch.ones(400), 12))


def test_time_profiles_lie_beside_permuted_steps(spectrum):
    found = ps.time_profiles(spectrum, [(0,), (1, 2)], n_permutations=99)
    figure = figures.time_profiles(found)
    check_house_rules(figure)
    assert len(figure.data) == 10
    null, observed = figure.data[:2]
    assert list(observed.x) == list(null.x) == ["1", "2+3"]
    np.testing.assert_array_equal(observed.y, found.center.observed.numpy())
    np.testing.assert_array_equal(null.y, found.center.null_mean.numpy())
    np.testing.assert_allclose(null.error_y.array, 1.96 * found.center.null_sd.numpy())
    np.testing.assert_array_equal(figure.data[9].y, found.autocorrelation.observed.numpy())
    assert "of 10 have p < .05, 0.5 are expected" in figure.layout.meta["seen"]


def test_explained_variance_has_the_band_of_the_walks(path):
    found, null = path
    figure = figures.explained_variance(found, null, k=5)
    check_house_rules(figure)
    band, middle, data = figure.data
    shares = (found.S**2 / (found.S**2).sum())[:5]
    np.testing.assert_allclose(data.y, shares.numpy())
    np.testing.assert_allclose(middle.y, np.median(null.shares.numpy()[:, :5], axis=0))
    low, high = np.quantile(null.shares.numpy()[:, :5], [0.025, 0.975], axis=0)
    np.testing.assert_allclose(band.y, np.concatenate([high, low[::-1]]))


def test_scores_of_a_path_and_of_a_walk_share_sign_size_and_steps(path):
    found, null = path
    figure = figures.principal_scores(found, null, k=2, boundaries=[7, 20])
    check_house_rules(figure)
    for i in range(2):
        data, walk = figure.data[2 * i : 2 * i + 2]
        np.testing.assert_allclose(data.y, (found.time_vectors[:, i] * found.S[i]).numpy())
        assert float(np.dot(data.y, walk.y)) >= 0
    assert np.linalg.norm(figure.data[1].y) == pytest.approx(
        float(null.S[0] * found.S.norm() / null.S.norm())
    )
    assert [line.x0 for line in figure.layout.shapes] == [7, 20, 7, 20]
    plane = figures.principal_plane(found, null, boundaries=[7])
    check_house_rules(plane)
    assert [trace.name for trace in plane.data][::2] == ["data", "random walk"]
    ring = plane.data[1]
    assert (ring.x[0], ring.text[0]) == (plane.data[0].x[7], "7")


def test_figures_of_paths_refuse_what_does_not_fit(path):
    found, null = path
    other = dataclasses.replace(null, steps=null.steps + 1)
    for draw in (figures.explained_variance, figures.principal_scores, figures.principal_plane):
        with pytest.raises(ValueError, match=rf"{draw.__name__} needs a null made from the same"):
            draw(found, other)
    with pytest.raises(ValueError, match="at least one component, but got k=0"):
        figures.principal_scores(found, null, k=0)
    thin = ps.gram(noise(9, 1).cumsum(0))
    with pytest.raises(ValueError, match="needs two components, but the spectrum has one"):
        figures.principal_plane(ps.spectrum(thin, center="steps"), ps.path_walk_null(thin))


def test_overlaps_are_filled_where_a_component_is_detected():
    A = noise(40, 900) + 3 * torch.outer(noise(40, seed=1), noise(900, seed=2)) / 6
    located = ps.located_components(ps.spectrum(ps.gram(A)), 1.0)
    figure = figures.component_overlaps(located, 4)
    check_house_rules(figure)
    strength, time, parameter = figure.data
    assert list(strength.marker.symbol) == ["circle"] + ["circle-open"] * 3
    np.testing.assert_array_equal(strength.y, located.strength[:4].numpy())
    np.testing.assert_array_equal(time.y, located.time_overlap[:4].numpy())
    np.testing.assert_array_equal(parameter.y, located.parameter_overlap[:4].numpy())
    assert "1 components are detected" in figure.layout.meta["seen"]
    with pytest.raises(ValueError, match="at least one component, but got k=0"):
        figures.component_overlaps(located, 0)


def test_a_flip_test_whose_deflation_did_not_end_says_so(data, spectrum, flips):
    unending = dataclasses.replace(flips, converged=False, first_rank=1, rank=7)
    names = [trace.name for trace in figures.scree(spectrum, unending).data]
    assert "random signs: rank 1, with deflation ≥ 7" in names
