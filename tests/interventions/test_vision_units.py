import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from phasescope import VisionNull, VisionScores
from phasescope.analysis.vision_scores import direction_selectivity, score_vision_responses
from phasescope.datasets import vision_stimuli
from phasescope.interventions import shuffled_weights, vision_null, vision_scores

SIZE, SIDE = 16, 7
STIMULI = vision_stimuli(SIZE, n_directions=8)


def layer(filters: Tensor, bias: float = 0.0) -> nn.Sequential:
    """A network of one convolution with these filters [u, side, side], alike in all colours."""
    conv = nn.Conv2d(3, len(filters), filters.shape[-1], padding="same").double()
    with torch.no_grad():
        conv.weight.copy_(filters[:, None].expand(-1, 3, -1, -1) / 3)
        assert conv.bias is not None
        conv.bias.fill_(bias)
    return nn.Sequential(conv)


def plane(side: int = SIDE) -> tuple[Tensor, Tensor]:
    t = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(-t, t, indexing="ij")
    return x, y


def gabor(angle: float, phase: float = 0.0) -> Tensor:
    x, y = plane()
    u = math.cos(angle) * x + math.sin(angle) * y
    found = (2 * math.pi * u / 4 + phase).cos() * (-(x**2 + y**2) / 6).exp()
    return found - found.mean()


def scores_of(filters: Tensor, bias: float = 0.0) -> VisionScores:
    return vision_scores(layer(filters, bias), stimuli=STIMULI)["0"]


def test_the_selectivity_of_known_tuning_curves_is_known():
    angles = 2 * math.pi * torch.arange(12) / 12
    curves = torch.stack([torch.ones(12), 1 + angles.cos(), torch.eye(12)[5], torch.zeros(12)])
    assert direction_selectivity(curves).tolist() == pytest.approx([0, 0.5, 1, 0], abs=1e-6)


def test_an_image_of_one_direction_is_that_of_another_turned():
    quarter = 2
    for name, axis in {
        "edges": 0,
        "arcs": 1,
        "boundaries": 0,
        "faint_edges": 0,
        "textures": 1,
    }.items():
        x = getattr(STIMULI, name)
        step = quarter if x.shape[axis] == 8 else 1
        turned = torch.rot90(x, 1, (-2, -1))
        assert (turned - x.roll(-step, axis)).abs().max() < 1e-5, name
    assert STIMULI.ratios == (2, 4)
    assert vision_stimuli(32, n_directions=4).ratios == (2, 4, 8)
    assert STIMULI.boundaries.square().mean((-3, -2, -1)).sqrt() == pytest.approx(0.5, abs=0.03)
    hues, greys = (x.square().mean((-3, -2, -1)) for x in (STIMULI.hues, STIMULI.greys))
    assert torch.allclose(hues, greys[:1].expand_as(hues), atol=1e-6)
    assert STIMULI.hues.mean(-3).abs().max() < 1e-6  # as light as the background


def test_a_filter_of_one_pixel_has_the_colour_score_of_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    w[0] = torch.tensor([1.0, -1.0, 0.0])
    w[1] = 1.0
    conv = nn.Conv2d(3, 6, 1).double()
    with torch.no_grad():
        conv.weight.copy_(w[:, :, None, None])
    found = vision_scores(nn.Sequential(conv), stimuli=STIMULI, contrast=0.3)["0"].colour
    angles = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 12
    shifts = 2 * math.pi * torch.arange(3, dtype=torch.float64) / 3
    hue = (w @ (math.sqrt(2) * (angles[:, None] - shifts).cos()).T).amax(1)
    expected = (1 - w.sum(1).abs() / hue.clamp(min=1e-12)).clamp(min=0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert found[:2].tolist() == pytest.approx([1, 0], abs=1e-6)


def test_gabor_filters_are_edge_detectors_and_blobs_are_not():
    x, y = plane()
    r2 = x**2 + y**2
    spot = (-r2 / 2).exp() - 0.25 * (-r2 / 8).exp()  # centre and surround, no orientation
    filters = torch.stack(
        [gabor(0.0), gabor(0.7), gabor(2.0, math.pi / 2), (-r2 / 6).exp(), spot - spot.mean()]
    )
    edge = scores_of(filters).edge
    assert bool((edge[:3] > 0.6).all()), edge
    assert bool((edge[3:] < 0.1).all()), edge


def test_a_template_with_a_threshold_is_a_curve_detector_and_a_line_is_not():
    arcs = STIMULI.arcs[1, :, 0].mean(1).double()  # [directions, S, S], light
    lines = STIMULI.lines[:, 0].mean(1).double()
    crop = slice(4, 13)
    templates = torch.cat([arcs[[0, 3]], lines[[1]]])[:, crop, crop]
    templates = templates / templates.square().sum((1, 2), keepdim=True).sqrt()
    templates = templates - templates.mean((1, 2), keepdim=True)
    best = functional.conv2d(
        torch.cat([arcs[[0, 3]], lines[[1]]])[:, None], templates[:, None], padding="same"
    )
    model = layer(templates)
    model.append(nn.ReLU())
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.copy_(-0.6 * torch.stack([best[i, i].max() for i in range(3)]))
    curve = vision_scores(model, ["1"], stimuli=STIMULI)["1"].curve
    assert bool((curve[:2] > 0.3).all()), curve
    assert curve[2] < 0.05, curve
    noise = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()
    gated = vision_scores(model, ["1"], stimuli=STIMULI, images=10 * noise)["1"].curve
    assert bool((gated == 0).all())  # noise excites them more than curves do
    same = vision_scores(model, ["1"], stimuli=STIMULI, images=0.05 * noise)["1"].curve
    assert torch.equal(same, curve)


class Boundary(nn.Module):
    """|high-pass| on the right less |high-pass| on the left: a boundary of frequencies."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = plane()
        side = torch.sign(x) * (x.abs() > 0.5) / 21
        high = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]).double() / 4
        self.register_buffer("side", torch.stack([side, side.T])[:, None])
        self.register_buffer("high", high[None, None])
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        high, side = (self.get_buffer(name) for name in ("high", "side"))
        energy = functional.conv2d(x.mean(1, keepdim=True).double(), high, padding="same").abs()
        return self.out(functional.conv2d(energy, side, padding="same").relu())


def test_a_difference_of_high_frequency_energy_is_a_high_low_detector_and_an_edge_is_not():
    found = vision_scores(Boundary(), ["out"], stimuli=STIMULI)["out"]
    assert bool((found.high_low > 0.2).all()), found.high_low
    x, _ = plane()
    plain = scores_of(torch.stack([torch.sign(x) / 49, gabor(0.0)])).high_low
    assert bool((plain < 0.05).all()), plain


def random_filters(seed: int, n: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, 5, generator=generator, dtype=torch.float64)


def stacked(scores: VisionScores) -> Tensor:
    return torch.stack([scores[name] for name in ("edge", "colour", "curve", "high_low")])


def test_scores_do_not_change_with_scale_offset_and_quarter_turns():
    filters = random_filters(0)
    found = stacked(scores_of(filters))
    assert found.shape == (4, 5)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((found[[0, 2, 3]].amax(1) > 0).all())
    for other in (
        scores_of(3 * filters),
        scores_of(filters, bias=-2.0),
        scores_of(torch.rot90(filters, 1, (1, 2))),
    ):
        assert torch.allclose(stacked(other), found, atol=1e-6)
    order = [4, 0, 2, 1, 3]
    assert torch.allclose(stacked(scores_of(filters[order])), found[:, order], atol=1e-12)
    # Each pattern of edges, gratings, arcs and lines is there with both contrasts.
    negative = stacked(scores_of(-filters))
    assert torch.allclose(negative[[0, 2]], found[[0, 2]], atol=1e-6)
    turned = layer(filters)
    shifted = vision_scores(turned, stimuli=STIMULI, background=0.5, contrast=0.5)["0"]
    assert torch.allclose(stacked(shifted), found, atol=1e-6)


def test_responses_and_scores_equal_those_of_loops():
    filters = random_filters(1, 2)
    filters = filters - filters.mean((1, 2), keepdim=True)
    found = scores_of(filters)
    t = SIZE // 4

    def response(image: Tensor, unit: int) -> float:
        image, padded = image.double().mean(0), np.zeros((SIZE + 4, SIZE + 4))
        padded[2:-2, 2:-2] = image.numpy()
        w = filters[unit].numpy()
        return max(
            0.0,
            max(
                float((padded[i : i + 5, j : j + 5] * w).sum())
                for i in range(t, SIZE - t)
                for j in range(t, SIZE - t)
            ),
        )

    for unit in range(2):
        tuning = []
        for j in range(4):
            images = [*STIMULI.gratings[j], *STIMULI.edges[j], *STIMULI.edges[j + 4]]
            tuning.append(max(response(image, unit) for image in images))
        flat = max(response(image, unit) for image in STIMULI.uniform)
        waves = [tuning[j] * np.exp(2j * math.pi * j / 4) for j in range(4)]
        expected = abs(sum(waves)) / sum(tuning) * max(0, 1 - flat / max(tuning))
        assert expected > 0.02
        assert float(found.edge[unit]) == pytest.approx(expected, rel=1e-4)


def small(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
    return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm2d(4))


def test_random_networks_exceed_their_null_as_rarely_as_it_says():
    stimuli = vision_stimuli(12, n_directions=4)
    null = vision_null((small(s) for s in range(40)), stimuli=stimuli)["0"]
    assert null.scores["edge"].shape == (40, 4)
    exceeded = torch.stack(
        [
            null.exceeded(vision_scores(small(s), stimuli=stimuli)["0"], 0.9)[:3].any(1)
            for s in range(1000, 1060)
        ]
    )
    # one network in ten exceeds each, up to the noise of 60 networks and of 40 of the null
    assert float(exceeded.double().mean()) == pytest.approx(0.1, abs=0.06)
    assert null.threshold("edge", largest=False) < null.threshold("edge")


def test_a_model_is_left_as_it_was_and_any_map_is_a_site():
    model = small(0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = vision_scores(model, ["1", "2"], stimuli=12)
    assert {name: len(s.edge) for name, s in found.items()} == {"1": 4, "2": 4}
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    other = shuffled_weights(model, seed=3)
    a, b = (m.get_parameter("0.weight").flatten() for m in (model, other))
    assert not torch.equal(a, b)
    assert torch.equal(a.sort().values, b.sort().values)
    assert torch.equal(other.get_parameter("0.bias"), model.get_parameter("0.bias"))


def test_what_cannot_be_scored_is_said():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 2))
    with pytest.raises(ValueError, match=r"no nn\.Conv2d"):
        vision_scores(flat, stimuli=12)
    with pytest.raises(ValueError, match=r"'1' has the shape \(1, 2\)"):
        vision_scores(flat, ["1"], stimuli=12)
    with pytest.raises(KeyError, match="no site 'conv'"):
        vision_scores(small(0), ["conv"], stimuli=12)
    with pytest.raises(ValueError, match="at least one network"):
        vision_null([], stimuli=12)
    with pytest.raises(ValueError, match="a multiple of 4"):
        vision_stimuli(16, n_directions=6)
    with pytest.raises(ValueError, match="at least 10 pixels"):
        vision_stimuli(4)
    responses = {name: torch.ones(1, *x.shape[:-3]) for name, x in STIMULI.families().items()}
    with pytest.raises(ValueError, match="arcs are missing"):
        score_vision_responses({k: v for k, v in responses.items() if k != "arcs"})
    with pytest.raises(ValueError, match="'edges' are not"):
        score_vision_responses(responses | {"edges": -responses["edges"]})
    with pytest.raises(KeyError, match="high_low, but got 'hue'"):
        VisionScores(*torch.zeros(4, 2).double())["hue"]
    null = VisionNull.of([VisionScores(*torch.full((4, 2), v).double()) for v in (0.2, 0.4)])
    assert null.threshold("curve", 1.0) == pytest.approx(0.4)
