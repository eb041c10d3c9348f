import pytest
import torch

from figures.captions import check_house_rules
from phasescope.figures import ablation_curves
from phasescope.interventions import Ablation


def ablation(n_within: int = 2) -> Ablation:
    alphas = (0.0, 1.0, 2.0)
    values = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    return Ablation(
        alphas,
        values,
        torch.ones(5, 3, 4, dtype=torch.float64),
        torch.zeros(n_within, 3, 4, dtype=torch.float64),
        removed=2.0,
        displacement=8.0,
    )


def test_every_control_is_drawn_beside_the_ablated_model_in_each_panel():
    figure = ablation_curves(ablation(), list("abcd"))
    check_house_rules(figure)
    assert len(figure.data) == 4 * (5 + 2 + 1)
    ablated = [trace for trace in figure.data if trace.name == "ablated"]
    assert [list(trace.y) for trace in ablated] == ablation().values.T.tolist()
    assert [trace.showlegend for trace in ablated] == [True, False, False, False]
    assert "25% of the length" in figure.layout.meta["computed"]
    assert [note.text for note in figure.layout.annotations] == list("abcd")


def test_without_a_subspace_there_are_no_controls_of_it():
    figure = ablation_curves(ablation(0), list("abcd"))
    assert {trace.name for trace in figure.data} == {"ablated", "random direction"}


def test_labels_must_fit():
    with pytest.raises(ValueError, match="a label for each of the 4 measured numbers, but got 1"):
        ablation_curves(ablation(), ["a"])
