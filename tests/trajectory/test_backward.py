import io

import numpy as np
import pytest
import torch
from torch import nn

from phasescope.trajectory.backward import BackwardEnd
from trajectory import passes


def counted(parameters):
    """How often the end of a backward pass was heard, and the handles of the hooks."""
    ends = []
    end = BackwardEnd(lambda: ends.append(torch.is_grad_enabled()))
    return ends, end.watch(parameters)


def test_every_backward_pass_ends_once_without_gradient_tracking():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    ends, handles = counted(model.parameters())
    for n in (1, 2, 3):
        model(torch.ones(4, 3)).mean().backward()
        assert ends == [False] * n
    for handle in handles:
        handle.remove()
    model(torch.ones(4, 3)).mean().backward()
    assert len(ends) == 3


def test_a_pass_that_adds_to_no_gradient_does_not_count():
    model = nn.Linear(3, 1)
    ends, _ = counted(model.parameters())
    x = torch.ones(2, 3, requires_grad=True)
    torch.autograd.grad(model(x).sum(), x)
    x.square().sum().backward()
    assert ends == []


def test_at_the_end_every_gradient_is_there():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    found = []
    end = BackwardEnd(lambda: found.append([p.grad.clone() for p in model.parameters()]))
    end.watch([model[1].bias])  # the first gradient to arrive
    model(torch.ones(4, 3)).mean().backward()
    for seen, p in zip(found[0], model.parameters(), strict=True):
        assert torch.equal(seen, p.grad)


def test_a_pass_that_failed_does_not_silence_the_next():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise ArithmeticError("on purpose")

    first, last = nn.Linear(2, 2), nn.Linear(2, 1)
    ends, _ = counted(last.parameters())
    with pytest.raises(ArithmeticError, match="on purpose"):
        last(Fails.apply(first(torch.ones(1, 2)))).sum().backward()
    assert ends == []
    last(first(torch.ones(1, 2))).sum().backward()
    assert ends == [False]


def test_an_error_at_the_end_reaches_the_loop():
    def fail():
        raise ArithmeticError("on purpose")

    model = nn.Linear(2, 1)
    BackwardEnd(fail).watch(model.parameters())
    with pytest.raises(ArithmeticError, match="on purpose"):
        model(torch.ones(1, 2)).sum().backward()


def test_a_watched_model_can_be_saved():
    model = nn.Linear(2, 1)
    counted(model.parameters())
    torch.save(model, io.BytesIO())


def test_the_end_of_a_backward_pass_comes_after_every_reduction(together):
    results = together(passes.ends_of_backward)
    for mode in passes.MODES:
        early = 0
        for result in results:
            rows, calls = result[mode]
            for seen, final, local in rows:
                assert seen.keys() == final.keys()
                assert all(np.array_equal(seen[name], final[name]) for name in final), mode
                early += any(not np.array_equal(local[name], final[name]) for name in local)
            expected = len(rows) + ("static" not in mode)
            assert calls >= expected
            if "reentrant" not in mode and mode != "static graph, recomputed":
                assert calls == expected
        assert early, mode  # a hook on the parameters would have been too early
