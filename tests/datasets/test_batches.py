import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from phasescope.datasets import RandomFlips, ShuffledBatches


def batches(
    n: int = 10, batch_size: int = 4, *, seed: int = 0, n_epochs: int = 3
) -> ShuffledBatches:
    """Batches of inputs i + .5 with labels i."""
    labels = torch.arange(n)
    return ShuffledBatches(labels[:, None] + 0.5, labels, batch_size, seed=seed, n_epochs=n_epochs)


def labels_of(sequence: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    return [y.tolist() for _, y in sequence]


def test_every_epoch_contains_every_sample_once_in_another_order():
    labels = labels_of(list(batches(n=50, batch_size=50)))
    assert all(sorted(epoch) == list(range(50)) for epoch in labels)
    assert labels[0] != labels[1] != labels[2] != labels[0]
    assert sorted(labels[0]) != labels[0]


def test_inputs_stay_with_their_labels():
    for x, y in batches():
        torch.testing.assert_close(x[:, 0], y + 0.5)


def test_the_last_batch_of_an_epoch_is_partial():
    sequence = batches(n=10, batch_size=4, n_epochs=2)
    assert [len(y) for _, y in sequence] == [4, 4, 2, 4, 4, 2]
    assert len(sequence) == 6


def test_a_batch_larger_than_the_data_holds_all_of_them():
    assert [len(y) for _, y in batches(n=3, batch_size=8, n_epochs=2)] == [3, 3]


def test_batches_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    first = labels_of(list(batches(seed=5)))
    torch.manual_seed(2)
    assert labels_of(list(batches(seed=5))) == first
    assert labels_of(list(batches(seed=6))) != first


def test_an_epoch_has_the_documented_permutation():
    import numpy as np

    word = np.random.SeedSequence([7, 2]).generate_state(1, np.uint64)[0]
    expected = torch.randperm(10, generator=torch.Generator().manual_seed(int(word)))
    third = list(batches(n=10, batch_size=10, seed=7, n_epochs=3))[2]
    assert torch.equal(third[1], expected)


def test_neighbouring_seeds_and_epochs_share_no_permutation():
    orders = [
        tuple(y.tolist())
        for seed in range(20)
        for _, y in batches(n=20, batch_size=20, seed=seed, n_epochs=20)
    ]
    assert len(set(orders)) == 400


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(batches())
    assert torch.equal(torch.get_rng_state(), before)


@given(
    n=st.integers(1, 12),
    batch_size=st.integers(1, 5),
    n_epochs=st.integers(1, 3),
    seed=st.integers(0, 2**63),
    data=st.data(),
)
def test_a_restored_position_continues_with_exactly_the_next_batch(
    n: int, batch_size: int, n_epochs: int, seed: int, data: st.DataObject
):
    whole = list(batches(n, batch_size, seed=seed, n_epochs=n_epochs))
    stop = data.draw(st.integers(0, len(whole)))
    first = batches(n, batch_size, seed=seed, n_epochs=n_epochs)
    iterator = iter(first)
    head = [next(iterator) for _ in range(stop)]
    second = batches(n, batch_size, seed=seed, n_epochs=n_epochs)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.position == stop
    together = head + list(second)
    assert len(together) == len(whole)
    for (x, y), (x_whole, y_whole) in zip(together, whole, strict=True):
        assert torch.equal(x, x_whole)
        assert torch.equal(y, y_whole)


def test_a_batch_counts_as_consumed_as_soon_as_it_is_yielded():
    sequence = batches()
    for count, _ in enumerate(sequence, start=1):
        assert sequence.position == count
        assert sequence.state_dict()["position"] == count


def test_a_loop_that_was_broken_off_continues_and_a_finished_one_yields_nothing():
    sequence = batches()
    for _ in sequence:
        break
    assert labels_of(list(sequence)) == labels_of(list(batches()))[1:]
    assert list(sequence) == []


def test_a_finished_training_can_be_prolonged():
    finished = batches(n_epochs=1)
    list(finished)
    longer = batches(n_epochs=2)
    longer.load_state_dict(finished.state_dict())
    assert labels_of(list(longer)) == labels_of(list(batches(n_epochs=2)))[3:]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (batches(seed=1), "seed=0, but it has seed=1"),
        (batches(batch_size=5), "batch_size=4, but it has batch_size=5"),
        (batches(n=11), "n_samples=10, but it has n_samples=11"),
    ],
)
def test_the_position_in_another_sequence_is_refused(other: ShuffledBatches, message: str):
    with pytest.raises(ValueError, match=message):
        batches().load_state_dict(other.state_dict())


@pytest.mark.parametrize("position", [-1, 10, None])
def test_a_position_outside_is_refused(position: int | None):
    state = {**batches().state_dict()}
    if position is None:
        del state["position"]
    else:
        state["position"] = position
    with pytest.raises(
        ValueError, match=f"between 0 and 9, .* but it is {position}.*enough epochs"
    ):
        batches().load_state_dict(state)


def test_sets_of_different_length_are_refused():
    # As users call it: the suite's own check of the annotations would refuse the shapes first.
    checked = ShuffledBatches.__init__
    initialise: Callable[..., None] = getattr(checked, "__wrapped__", checked)
    made = object.__new__(ShuffledBatches)
    with pytest.raises(ValueError, match="inputs has 3 and labels has 2"):
        initialise(made, torch.zeros(3, 1), torch.zeros(2), 1, seed=0, n_epochs=1)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one, but inputs has 0"):
        ShuffledBatches(torch.zeros(0, 1), torch.zeros(0), 1, seed=0, n_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0, "seed": 0, "n_epochs": 1}, "batch_size must be at least 1, but it is 0"),
        ({"batch_size": 1, "seed": 0, "n_epochs": 0}, "n_epochs must be at least 1, but it is 0"),
        ({"batch_size": 1, "seed": -1, "n_epochs": 1}, "seed must be at least 0, but it is -1"),
    ],
)
def test_numbers_that_are_too_small_are_refused(arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        ShuffledBatches(torch.zeros(2, 1), torch.zeros(2), **arguments)


def test_flips_mirror_half_of_the_images_and_are_restored_with_the_position():
    x = torch.arange(4000.0).view(1000, 1, 2, 2)
    y = torch.arange(1000)

    def flipped(seed: int = 3) -> RandomFlips:
        return RandomFlips(ShuffledBatches(x, y, 100, seed=seed, n_epochs=2))

    first, again = flipped(), flipped()
    seen = list(first)
    assert len(seen) == len(first) == 20
    mirrored = []
    for images, labels in seen:
        same = (images == x[labels]).flatten(1).all(1)
        assert torch.equal(images[~same], x[labels][~same].flip(-1))
        mirrored.append(~same)
    assert 0.45 < torch.cat(mirrored).double().mean() < 0.55
    assert not torch.equal(mirrored[0], mirrored[1])
    again.load_state_dict({**first.state_dict(), "position": 12})
    rest = list(again)
    assert len(rest) == 8
    assert all(torch.equal(a[0], b[0]) for a, b in zip(seen[12:], rest, strict=True))
    assert not torch.equal(next(iter(flipped(4)))[0], seen[0][0])
