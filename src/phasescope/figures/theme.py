"""How every figure looks: colours, template, caption, and text that is safe to draw."""

import math
from typing import Any

import plotly.graph_objects as go

# After Okabe and Ito (2008) and Tol (2021), whose colours colour-blind readers can tell apart;
# darker, for dots on white.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#007A5A"
PURPLE = "#AA4499"
ORANGE = "#B87800"
SKY = "#3B9BD1"
INK = "#1F2933"
MUTED = "#52606D"
GRID = "#E4E7EB"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK, MUTED)

# Data and null keep their colours through all figures.
DATA = BLUE
NULL = VERMILLION

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_AXIS = {
    "showline": True,
    "linecolor": MUTED,
    "ticks": "outside",
    "tickcolor": MUTED,
    "gridcolor": GRID,
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
    "tickfont": {"size": 12},
}

TEMPLATE = go.layout.Template(
    layout={
        "colorway": list(COLOURS),
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {
            "x": 0,
            "xref": "paper",
            "font": {"size": 16},
            "automargin": True,
            "yref": "container",
            "pad": {"b": 12},
        },
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "margin": {"l": 56, "r": 14, "t": 26, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        # Below the plot, in rows: a legend at the side leaves a phone no room for the data.
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "traceorder": "normal",
            "font": {"size": 12},
        },
        "hoverlabel": {"font": {"family": FONT, "size": 12}},
        "hovermode": "closest",
    }
)


def plain(text: str) -> str:
    """Text that plotly draws as it is written: no tag or entity in it has a meaning.

    Plotly reads a subset of HTML and templates like `%{x}` in titles, names and labels; names of
    parameters or settings come from outside and must not be read that way.

    Args:
        text: Any string.

    Returns:
        The string with `&`, `<`, `>` and the brace of `%{` as entities.

    Example:
        >>> plain("W_E <0>")
        'W_E &lt;0&gt;'
    """
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%&#123;")):
        text = text.replace(mark, entity)
    return text


def log_axis(low: float, high: float, pixels: int = 340) -> dict[str, Any]:
    """Settings of a logarithmic axis whose tick labels do not touch.

    Plotly's own choice labels every digit where there is no room for it.

    Args:
        low: Smallest value shown.
        high: Largest value shown.
        pixels: Length of the axis.

    Returns:
        Type, tick distance (every digit, 1-2-5, or powers of ten) and number format.

    Example:
        >>> [log_axis(10.0**-n, 1.0)["dtick"] for n in (1, 3, 9)]
        ['D1', 'D2', 1]
    """
    decade = pixels / max(math.log10(high / low), 1e-9)
    # The closest neighbours are 9 and 10 of all digits, 1 and 2 of 1-2-5.
    digits, halves = decade * math.log10(10 / 9), decade * math.log10(2)
    dtick = "D1" if digits >= 12 else "D2" if halves >= 14 else math.ceil(14 / decade)
    return {"type": "log", "dtick": dtick, "exponentformat": "e"}


def styled(
    figure: go.Figure, *, title: str, seen: str, computed: str, misleads: str, height: int = 440
) -> go.Figure:
    """The figure in the house style, with its caption in `layout.meta`.

    The height is fixed and the width follows the page, so that vertical distances can be planned.

    Args:
        figure: The figure; changed in place.
        title: What the figure shows, in a few words.
        seen: What is seen: every mark explained.
        computed: How the numbers were computed.
        misleads: When the figure misleads.
        height: Height in pixels.

    Returns:
        The same figure.

    Example:
        >>> figure = styled(go.Figure(), title="Loss", seen="s", computed="c", misleads="m")
        >>> figure.layout.meta["misleads"]
        'm'
    """
    return figure.update_layout(
        template=TEMPLATE,
        title={"text": plain(title)},
        height=height,
        meta={"title": title, "seen": seen, "computed": computed, "misleads": misleads},
    )
