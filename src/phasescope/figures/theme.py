"""How every figure looks: colours, template, caption, and text that is safe to draw."""

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

    Plotly reads a subset of HTML in titles, names and labels; names of parameters or settings
    come from outside and must not be read that way.

    Args:
        text: Any string.

    Returns:
        The string with `&`, `<` and `>` as entities.

    Example:
        >>> plain("W_E <0>")
        'W_E &lt;0&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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
