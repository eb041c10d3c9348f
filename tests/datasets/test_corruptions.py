import pytest
import torch
from torch.nn import functional

import phasescope as ps
from phasescope.datasets import (
    as_inputs,
    downscale,
    draw_examples,
    gaussian_noise,
    load_digits_images,
    mix_noise,
    noisy_labels,
    permuted_pixels,
    phase_scrambled,
    shuffle,
)
from phasescope.models import MLP, seeded

NOISES = (gaussian_noise, phase_scrambled, permuted_pixels)
UNITS = ("pixels", "rows", "columns")


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    found = load_digits_images("train")
    return found.images.double() / 255, found.labels


@pytest.fixture
def numbered():
    """Images whose every value is different: 6 of 4 x 5 pixels."""
    return torch.arange(120.0).reshape(6, 4, 5)


def test_gaussian_noise_keeps_the_moments_of_every_pixel_and_no_correlation(digits):
    images, _ = digits
    noise = torch.cat([gaussian_noise(images, generator=random(s)) for s in range(7)])
    spread = images.std(0, correction=0)
    error = 5 * spread / len(noise) ** 0.5
    assert bool(((noise.mean(0) - images.mean(0)).abs() <= error).all())
    assert bool(((noise.std(0) - spread).abs() <= error).all())  # its own error is smaller yet
    varying = spread.flatten() > 0.05
    correlations = torch.corrcoef(noise.flatten(1)[:, varying].T)
    largest = (correlations - torch.eye(len(correlations))).abs().max()
    assert float(largest) < 5 / len(noise) ** 0.5
    kept = torch.corrcoef(images.flatten(1)[:, varying].T)
    assert float((kept - torch.eye(len(kept))).abs().max()) > 0.5


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 7, 5), (2, 1, 6)])
def test_phase_scrambling_keeps_the_amplitude_of_every_frequency(shape):
    images = torch.rand(shape, generator=random(), dtype=torch.float64)
    scrambled = phase_scrambled(images, generator=random(1))
    wanted, found = torch.fft.fft2(images).abs(), torch.fft.fft2(scrambled).abs()
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert torch.allclose(scrambled.mean((1, 2)), images.mean((1, 2)), atol=1e-14)
    assert torch.allclose(scrambled.var((1, 2)), images.var((1, 2)), atol=1e-14)
    assert not torch.allclose(scrambled, images, atol=0.01)


def test_permuted_pixels_keep_each_histogram_and_differ_between_images(numbered):
    permuted = permuted_pixels(numbered, generator=random())
    assert torch.equal(permuted.flatten(1).sort().values, numbered.flatten(1))
    places = permuted - numbered[:, :1, :1]
    assert not torch.equal(places[0], places[1])


@pytest.mark.parametrize("make", NOISES)
def test_a_mixture_has_the_mean_and_variance_of_its_image(make, digits):
    images = digits[0][:50]
    noise = make(images, generator=random())
    closeness = []
    for amount in (0, 0.25, 0.5, 0.9, 1):
        mixed = mix_noise(images, noise, amount)
        assert torch.allclose(mixed.mean((1, 2)), images.mean((1, 2)), atol=1e-14)
        assert torch.allclose(mixed.var((1, 2)), images.var((1, 2)), atol=1e-14)
        both = torch.stack([mixed.flatten(1), images.flatten(1)], dim=1)
        closeness.append(float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in both]).mean()))
    assert closeness[0] == pytest.approx(1)
    assert closeness == sorted(closeness, reverse=True)


def test_nothing_of_the_image_but_its_moments_is_left_in_a_full_mixture():
    images = torch.rand(4, 5, 5, generator=random(), dtype=torch.float64)
    noise = torch.randn(4, 5, 5, generator=random(1), dtype=torch.float64)
    mixed = mix_noise(images, noise, 1)
    for image, pattern in zip(mixed, noise, strict=True):
        pair = torch.stack([image.flatten(), pattern.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(1, abs=1e-12)
    assert torch.equal(mix_noise(images, noise, 0), images)


def test_images_and_noise_of_one_grey_make_no_numbers_up():
    grey, striped = torch.full((1, 2, 2), 0.3), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    assert torch.allclose(mix_noise(grey, striped, 0.5), grey)
    assert torch.allclose(mix_noise(striped, grey, 0.5), striped)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("amount", [0, 0.25, 0.5, 1])
def test_one_permutation_moves_the_same_units_of_all_images(units, amount, numbered):
    moved = shuffle(numbered, units, "fixed", amount, generator=random(3))
    offsets = torch.arange(6)[:, None, None] * 20
    assert torch.equal(moved, moved[:1] + offsets)  # whatever happens, happens to all alike
    n_units = {"pixels": 20, "rows": 4, "columns": 5}[units]
    per_unit = {"pixels": 1, "rows": 5, "columns": 4}[units]
    n_moved = round(amount * n_units)
    assert int((moved[0] != numbered[0]).sum()) == (n_moved if n_moved > 1 else 0) * per_unit
    assert torch.equal(moved[0].flatten().sort().values, numbered[0].flatten())


@pytest.mark.parametrize("units", UNITS)
def test_fresh_permutations_differ_and_keep_rows_and_columns_whole(units, numbered):
    moved = shuffle(numbered, units, "fresh", 1, generator=random())
    assert torch.equal(moved.flatten(1).sort().values, numbered.flatten(1))
    relative = moved - numbered[:, :1, :1]
    assert not torch.equal(relative[0], relative[1])
    assert not bool((moved == numbered).any())
    if units == "rows":
        assert bool((moved[..., 1:] - moved[..., :-1] == 1).all())
    if units == "columns":
        assert bool((moved[:, 1:] - moved[:, :-1] == 5).all())


@pytest.mark.parametrize("units", UNITS)
def test_shuffling_across_images_keeps_the_distribution_of_every_pixel(units, numbered):
    moved = shuffle(numbered, units, "across", 0.5, generator=random())
    assert torch.equal(moved.sort(0).values, numbered)
    n_units = {"pixels": 20, "rows": 4, "columns": 5}[units]
    per_unit = {"pixels": 1, "rows": 5, "columns": 4}[units]
    assert int((moved != numbered).sum()) == 3 * n_units * per_unit  # 3 of the 6 images, everywhere
    source = moved // 20  # the image that a value comes from
    if units == "rows":
        assert bool((source == source[..., :1]).all())
    if units == "columns":
        assert bool((source == source[:, :1]).all())
    if units == "pixels":
        assert not bool((source[0] == source[0, 0, 0]).all())


def test_shuffling_across_images_leaves_nothing_of_the_classes(digits):
    images, labels = digits
    moved = shuffle(images, "pixels", "across", 1, generator=random())

    def separation(x):
        zeros, ones = x[labels == 0], x[labels == 1]
        return float((zeros.mean(0) - ones.mean(0)).norm() / x.std(0, correction=0).norm())

    assert separation(images) > 1
    assert separation(moved) < 3 * (2 / 140) ** 0.5  # two means of about 140 images


@pytest.mark.parametrize("units", UNITS)
def test_a_fixed_permutation_leaves_a_fully_connected_network_its_spectrum(units, float64_default):
    images = load_digits_images("train")
    x, y = as_inputs(images)[:80, 0].double(), images.labels[:80]
    order = torch.arange(64.0).reshape(1, 8, 8)
    order = shuffle(order, units, "fixed", 1, generator=random(5)).flatten().long()
    shuffled = shuffle(x, units, "fixed", 1, generator=random(5))
    assert torch.equal(shuffled.flatten(1), x.flatten(1)[:, order])

    def gram(inputs, permute):
        model = seeded(lambda: MLP((64, 6, 10)), 0)
        if permute:
            with torch.no_grad():
                model.fc1.weight.copy_(model.fc1.weight[:, order])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rows = []
        for batch, target in zip(inputs.split(8), y.split(8), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), target).backward()
            rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            optimizer.step()
        return ps.gram(torch.stack(rows)).K

    plain = gram(x, permute=False)
    assert torch.allclose(gram(shuffled, permute=True), plain, rtol=1e-10)
    assert not torch.allclose(gram(shuffled, permute=False), plain, rtol=1e-3)


def test_smaller_images_are_means_of_squares(digits):
    images, _ = digits
    for side in (8, 4, 2, 1):
        small = downscale(images, side)
        wanted = functional.adaptive_avg_pool2d(images, side)
        assert torch.allclose(small, wanted, atol=1e-14)
        assert torch.allclose(small.mean((1, 2)), images.mean((1, 2)), atol=1e-14)
    assert torch.equal(downscale(images, 8), images)


def test_a_fraction_of_the_labels_is_drawn_anew_from_all_classes():
    labels = torch.arange(10).repeat(1000)
    assert torch.equal(noisy_labels(labels, 0, 10, generator=random()), labels)
    half = noisy_labels(labels, 0.5, 10, generator=random())
    # Nine in ten of the 5,000 come out different; five standard deviations either way.
    assert abs(int((half != labels).sum()) - 4500) < 5 * (5000 * 0.09) ** 0.5
    full = noisy_labels(labels, 1, 10, generator=random())
    table = torch.zeros(10, 10).index_put_((labels, full), torch.ones(10_000), accumulate=True)
    chi_squared = float(((table - 100) ** 2 / 100).sum())
    assert chi_squared < 150  # mean 99, standard deviation 14 if nothing of the label is left


def test_subsets_of_classes_come_at_equal_size_and_smaller_ones_begin_larger_ones():
    labels = torch.arange(10).repeat(100)
    few = draw_examples(labels, 150, classes=(1, 7), generator=random())
    more = draw_examples(labels, 150, classes=(1, 7, 9), generator=random())
    assert len(few) == len(more) == len(few.unique()) == 150
    assert set(labels[few].tolist()) == {1, 7}
    assert set(labels[more].tolist()) == {1, 7, 9}
    assert torch.equal(draw_examples(labels, 20, classes=(1, 7), generator=random()), few[:20])
    assert len(draw_examples(labels, 1000, generator=random()).unique()) == 1000


def corruptions(images, labels):
    yield from (make(images, generator=random(7)) for make in NOISES)
    for scope in ("fixed", "fresh", "across"):
        yield shuffle(images, "rows", scope, 0.5, generator=random(7))
    yield noisy_labels(labels, 0.5, 10, generator=random(7))
    yield draw_examples(labels, 5, generator=random(7))


def test_corruptions_depend_on_their_generator_alone_and_change_nothing_else(digits):
    images, labels = digits[0][:20], digits[1][:20]
    before, state = (images.clone(), labels.clone()), torch.random.get_rng_state()
    first, second = list(corruptions(images, labels)), list(corruptions(images, labels))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_keep_their_dtype(dtype):
    images = torch.rand(3, 4, 4, generator=random(), dtype=dtype)
    for make in NOISES:
        noise = make(images, generator=random())
        assert noise.dtype == mix_noise(images, noise, 0.5).dtype == dtype
    assert shuffle(images, "columns", "across", 1, generator=random()).dtype == dtype
    assert downscale(images, 2).dtype == dtype


IMAGES = torch.zeros(2, 4, 4)
LABELS = torch.tensor([1, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix_noise(IMAGES, IMAGES, 1.5), r"between 0 \(nothing\) and 1 \(all\).*1\.5"),
        (lambda: mix_noise(IMAGES, IMAGES[:1], 0.5), r"shape \(2, 4, 4\) and noise \(1, 4, 4\)"),
        (lambda: shuffle(IMAGES, "dots", "fixed", 1, generator=random()), r"units must.*'dots'"),
        (lambda: shuffle(IMAGES, "rows", "all", 1, generator=random()), r"scope must.*'all'"),
        (lambda: shuffle(IMAGES, "rows", "fresh", -1, generator=random()), r"it is -1"),
        (lambda: shuffle(IMAGES[:0], "rows", "fresh", 1, generator=random()), r"at least one im"),
        (lambda: downscale(IMAGES, 3), r"4 x 4 and the side is 3"),
        (lambda: downscale(IMAGES, 0), r"the side is 0"),
        (lambda: downscale(torch.zeros(2, 4, 2), 2), r"4 x 2"),
        (lambda: noisy_labels(LABELS, 0.5, 3, generator=random()), r"between 0 and 2.*from 1 to 3"),
        (lambda: draw_examples(LABELS, 3, generator=random()), r"between 1 and 2.*3 are required"),
        (
            lambda: draw_examples(LABELS, 2, classes=(1, 2), generator=random()),
            r"of the classes \(1, 2\), but 2",
        ),
    ],
)
def test_refused(call, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        call()
