import pytest
import torch
from torch import nn

from phasescope.models import evaluating


def test_evaluating_puts_back_every_mode_and_the_random_state_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    before = torch.get_rng_state()

    def evaluate_badly() -> None:
        with evaluating(model):
            torch.rand(1)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        evaluate_badly()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_evaluating_puts_back_buffers_that_change_in_evaluation_too():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    model = Counting()
    with evaluating(model):
        model(torch.ones(1))
        assert model.calls == 1
    assert model.calls == 0
