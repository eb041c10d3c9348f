import functools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import phasescope as ps

RULES = st.one_of(
    st.tuples(st.just(ps.every), st.integers(1, 40).map(lambda k: [k])),
    st.tuples(st.just(ps.at), st.lists(st.integers(0, 60), min_size=1, max_size=5)),
    st.tuples(st.just(ps.log_spaced), st.integers(1, 60).map(lambda n: [n])),
)


@given(st.lists(RULES, min_size=1, max_size=3), st.integers(1, 50))
def test_the_test_of_a_schedule_its_list_and_its_count_agree(rules, n_steps):
    schedule = functools.reduce(operator.or_, [make(*arguments) for make, arguments in rules])
    due = schedule.resolve(n_steps)
    steps = schedule.steps(n_steps)
    assert steps == [step for step in range(n_steps) if due(step)]
    assert schedule.count(n_steps) == len(steps)


@given(st.integers(1, 300), st.integers(1, 10_000))
def test_log_spaced_gives_exactly_n_distinct_steps_with_both_ends(n, n_steps):
    steps = ps.log_spaced(n).steps(n_steps)
    assert len(steps) == min(n, n_steps)
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == n_steps - 1 or n == 1


def test_log_spaced_is_geometric_where_integers_allow_it():
    assert ps.log_spaced(5).steps(1001) == [0, 1, 10, 100, 1000]
    assert ps.log_spaced(2).steps(1001) == [0, 1000]
    assert ps.log_spaced(1).steps(1001) == [0]
    # The first steps are dense: the geometric series would repeat 1 and 2 there.
    assert ps.log_spaced(20).steps(101)[:6] == [0, 1, 2, 3, 4, 5]


def test_a_union_has_every_step_once():
    union = ps.every(4) | ps.at(0, 5, 8) | ps.every(6)
    assert union.steps(13) == [0, 4, 5, 6, 8, 12]
    assert union.count(13) == 6


def test_given_steps_are_sorted_and_those_beyond_the_end_are_left_out():
    assert ps.at(9, 2, 2, 30).steps(10) == [2, 9]
    assert ps.at(9, 2, 2, 30).count(10) == 2


def test_only_log_spaced_needs_the_length_of_the_run():
    assert (ps.every(2) | ps.at(3)).resolve(None)(3)
    assert not (ps.every(2) | ps.at(3)).needs_n_steps
    with pytest.raises(ValueError, match=r"n_steps is None. Pass Recorder\(\.\.\., n_steps="):
        (ps.every(2) | ps.log_spaced(3)).resolve(None)


def test_a_schedule_is_written_as_the_calls_that_make_it():
    schedule = ps.every(100) | ps.log_spaced(5) | ps.at(7, 3)
    assert str(schedule) == "every(100) | log_spaced(5) | at(3, 7)"
    assert eval(str(schedule), vars(ps)) == schedule


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ps.every(0), ValueError, r"every\(k\) requires a positive integer, but 0"),
        (lambda: ps.log_spaced(-1), ValueError, r"log_spaced\(n\) requires a positive integer"),
        (lambda: ps.every(1.5), TypeError, r"requires an integer, but 1.5 arrived"),
        (lambda: ps.at(), ValueError, r"at\(\) requires at least one step"),
        (lambda: ps.at(3, -1), ValueError, r"requires steps of 0 or more, but \(3, -1\)"),
        (lambda: ps.every(2) | 5, TypeError, "unsupported operand"),
    ],
)
def test_bad_schedules_say_what_is_required(unchecked_types, call, error, message):
    with pytest.raises(error, match=message):
        call()
