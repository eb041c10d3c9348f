"""A network over training: the slider, the animation and the moving picture."""

import sys
from pathlib import Path

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import (
    NetworkFrame,
    network_animation,
    network_movie,
    network_over_training,
)

STEPS = np.arange(201)
LOSSES = {"train": np.logspace(0, -6, 201), "test": np.linspace(3, 0.1, 201)}


@pytest.fixture
def frames() -> list[NetworkFrame]:
    generator = np.random.default_rng(0)
    return [
        NetworkFrame(
            step,
            np.full(3, 1 / 3),
            np.full(3, 1 / 3),
            np.ones(4),
            np.full(5, 0.5),
            generator.normal(size=(7, 7)),
            np.zeros((7, 7)),
        )
        for step in (0, 10, 200)
    ]


def test_the_slider_shows_one_step_at_a_time(frames: list[NetworkFrame]):
    figure = network_over_training(frames)
    check_house_rules(figure)
    assert [trace.visible for trace in figure.data] == [False] * 12 + [True] * 6
    steps = figure.layout.sliders[0].steps
    assert [step.label for step in steps] == ["0", "10", "200"]
    assert steps[1].args[0]["visible"] == [False] * 6 + [True] * 6 + [False] * 6
    heat = figure.data[4].z
    assert heat.dtype == np.uint8
    assert (heat.min(), heat.max()) == (0, 255)
    assert not figure.data[5].z.any()  # a constant has no colours


def test_the_slider_moves_a_line_on_the_losses_which_stay(frames: list[NetworkFrame]):
    figure = network_over_training(frames, steps=STEPS, losses=LOSSES)
    check_house_rules(figure)
    np.testing.assert_array_equal(figure.data[0].x, STEPS[1:])  # every step but 0 is a dot
    assert figure.data[0].type == "scattergl"
    for index, slider in enumerate(figure.layout.sliders[0].steps):
        shown = slider.args[0]["visible"]
        assert shown[:2] == [True, True]
        lines = [t for t, on in zip(figure.data[2:], shown[2:], strict=True) if on]
        assert len(lines) == 7
        assert list(lines[-1].x) == [max(frames[index].step, 1)] * 2
        assert lines[-1].xaxis == figure.data[0].xaxis


def test_every_frame_of_the_animation_draws_into_its_own_panels(frames: list[NetworkFrame]):
    figure = network_animation(frames, steps=STEPS, losses=LOSSES, milliseconds=100)
    check_house_rules(figure)
    assert [frame.name for frame in figure.frames] == ["0", "1", "2"]
    for frame, source in zip(figure.frames, frames, strict=True):
        assert list(frame.traces) == list(range(2, 9))
        drawn = [figure.data[i] for i in frame.traces]
        assert [t.xaxis for t in frame.data] == [t.xaxis for t in drawn]
        assert [t.type for t in frame.data] == [t.type for t in drawn]
        assert list(frame.data[-1].x) == [max(source.step, 1)] * 2
    play, pause = figure.layout.updatemenus[0].buttons
    assert play.args[0] is None
    assert play.args[1]["frame"]["duration"] == 100
    assert pause.args[1]["mode"] == "immediate"
    labels = [step.label for step in figure.layout.sliders[0].steps]
    assert labels == ["0", "10", "200"]


@pytest.mark.parametrize("name", ["network.gif", "network.png"])
def test_the_moving_picture_has_every_step_and_its_times(
    frames: list[NetworkFrame], tmp_path: Path, name: str
):
    Image = pytest.importorskip("PIL.Image")
    path = network_movie(frames, tmp_path / name, steps=STEPS, losses=LOSSES, milliseconds=200)
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        seen, times = [], []
        for i in range(3):
            picture.seek(i)
            seen.append(np.asarray(picture.convert("RGB")))
            times.append(picture.info["duration"])
    assert times == [200, 200, 800]
    assert not np.array_equal(seen[0], seen[1])
    # The neuron's picture has the colours of its levels, the first row of pairs at the bottom.
    heat = seen[1][-40, 70]
    assert heat.tolist() != [255, 255, 255]


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_drawn_is_refused(
    frames: list[NetworkFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ValueError, match="at least one frame"):
        network_over_training([])
    with pytest.raises(ValueError, match="losses need their steps"):
        network_animation(frames, losses=LOSSES)
    with pytest.raises(ValueError, match=r"\.gif, \.png or \.apng file, but 'x.mp4'"):
        network_movie(frames, tmp_path / "x.mp4")
    with pytest.raises(ValueError, match="at least one frame, and steps"):
        network_movie(frames, tmp_path / "x.gif", losses=LOSSES)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        network_movie(frames, tmp_path / "x.gif")
