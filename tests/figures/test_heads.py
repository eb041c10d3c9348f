import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import Stretch, heads_over_training, paths_of_losses


def test_a_head_has_one_colour_in_all_panels():
    y = {"l0h0": np.array([1.0, 2.0]), "l1h0": np.array([2.0, 3.0])}
    panels = {
        "stripe": ([0, 1], y),
        "change (log)": ([1, 2], y),
        "loss": ([0, 1], {"copy": y["l0h0"]}),
    }
    figure = heads_over_training(["l0h0", "l1h0"], panels, phases=[Stretch("fall", 0, 1)])
    colours = {}
    for trace in figure.data:
        assert colours.setdefault(trace.name, trace.line.color) == trace.line.color
    assert len(set(colours.values())) == 3
    assert sum(trace.showlegend for trace in figure.data) == 3
    assert figure.layout.yaxis2.type == "log"
    assert "Shaded: fall." in figure.layout.meta["seen"]
    check_house_rules(figure)


def test_checkpoints_of_the_phase_are_larger():
    xy = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 0.0]])
    figure = paths_of_losses({"two": ([0, 10, 20], xy)}, {"two": Stretch("fall", 5, 15)})
    assert list(figure.data[0].marker.size) == [4, 9, 4]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least one panel"):
        heads_over_training([], {})
    with pytest.raises(ValueError, match="at least one path"):
        paths_of_losses({}, {})
