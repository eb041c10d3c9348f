"""Tests of the house style."""

import plotly.graph_objects as go

from phasescope.figures.theme import BLUE, COLOURS, INK, MUTED, NULL, plain, styled


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast_with_white(color: str) -> float:
    return 1.05 / (luminance(color) + 0.05)


def test_marks_have_the_contrast_of_graphics_and_text_that_of_text():
    assert min(contrast_with_white(color) for color in COLOURS) >= 3
    assert min(contrast_with_white(color) for color in (INK, MUTED)) >= 4.5


def test_data_and_null_differ_most_in_hue_and_not_only_in_green_against_red():
    assert abs(int(BLUE[5:7], 16) - int(NULL[5:7], 16)) > 150


def test_plain_text_keeps_its_characters_as_entities():
    assert plain("a<b>&lt; %{x}") == "a&lt;b&gt;&amp;lt; %&#123;x}"


def test_the_caption_stays_as_written_and_the_drawn_title_is_plain():
    figure = styled(go.Figure(), title="<b>", seen="a", computed="b", misleads="c")
    assert figure.layout.meta == {"title": "<b>", "seen": "a", "computed": "b", "misleads": "c"}
    assert figure.layout.title.text == "&lt;b&gt;"
