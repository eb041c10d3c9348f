"""What every figure of the package must have."""

import plotly.graph_objects as go


def check_house_rules(figure: go.Figure) -> None:
    """A caption, a title on at least one axis of each kind, a light ground, a legend below."""
    caption = figure.layout.meta
    assert set(caption) == {"title", "seen", "computed", "misleads"}
    assert all(len(text) > 10 for text in caption.values())
    assert all(text.endswith(".") for key, text in caption.items() if key != "title")
    for kind in ("xaxis", "yaxis"):
        axes = [figure.layout[key] for key in figure.layout if key.startswith(kind)]
        assert any(axis.title.text or axis.ticktext for axis in axes), kind
    assert figure.layout.template.layout.plot_bgcolor == "#FFFFFF"
    assert figure.layout.template.layout.legend.orientation == "h"
    assert figure.layout.height >= 200
    assert figure.layout.width is None
