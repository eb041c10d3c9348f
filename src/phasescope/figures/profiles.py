"""Figure of time profiles of components beside permuted steps."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.analysis.profiles import ProfileStatistic, TimeProfiles
from phasescope.figures.theme import DATA, INK, NULL, styled

_PANEL_HEIGHT = 130
# Of normal values 95 % lie within this many standard deviations.
_REACH = 1.96


def time_profiles(profiles: TimeProfiles) -> go.Figure:
    """When components act: their centre of mass, spread, early and late mass, beside the null.

    One panel for each statistic, one mark for each component (or group). The null of permuted steps
    is a bar from its mean, 1.96 standard deviations to each side: a component outside it has an
    order in time.

    Args:
        profiles: From `phasescope.time_profiles`.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> A = torch.randn(40, 900, generator=torch.Generator().manual_seed(0))
        >>> spectrum = ps.spectrum(ps.gram(A), normalize=True)
        >>> len(time_profiles(ps.time_profiles(spectrum, 3)).data)
        10
    """
    percent = f"{100 * profiles.share:g}%"
    panels = [
        ("centre of mass", "step", profiles.center),
        ("spread", "steps", profiles.spread),
        (f"energy in the first {percent} of the steps", "share", profiles.early),
        (f"energy in the last {percent} of the steps", "share", profiles.late),
        ("correlation of the time vector with itself one step later", "correlation",
         profiles.autocorrelation),
    ]  # fmt: skip
    names = ["+".join(str(i + 1) for i in group) for group in profiles.groups]
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06,
        subplot_titles=[title for title, _, _ in panels],
    )  # fmt: skip
    for row, (_, unit, statistic) in enumerate(panels, start=1):
        for trace in _marks(names, statistic, in_legend=row == 1):
            place: Any = {"row": row, "col": 1}  # plotly's stubs want strings here
            figure.add_trace(trace, **place)
        figure.update_yaxes(title_text=unit, nticks=4, row=row, col=1)
    figure.update_annotations(
        font={"size": 12, "color": INK}, x=0, xanchor="left", xref="paper", yshift=-1
    )
    figure.update_xaxes(type="category", row=len(panels), col=1)
    figure.update_xaxes(title_text="component (largest first)", row=len(panels), col=1)
    n_small = sum(int((statistic.p < 0.05).sum()) for _, _, statistic in panels)
    n_all = len(panels) * len(names)
    return styled(
        figure,
        title="When components act",
        seen=(
            "Dots: statistics of each component's squared time vector (components that share a "
            f"mark, such as 2+3, share a profile); bars: the null of permuted steps, mean "
            f"± {_REACH} standard deviations. {n_small} of {n_all} have p < .05, "
            f"{0.05 * n_all:.2g} are expected of noise."
        ),
        computed=(
            "Energy is the square of the time vector, of normalised steps; the null permutes the "
            "steps and keeps the spectrum and all parameter directions."
        ),
        misleads=(
            "Components with nearly equal singular values are an arbitrary basis of their plane: "
            "only their group has a profile. A slow drift of anything orders the steps, training "
            "or not. Statistics of one component are not independent of each other."
        ),
        height=90 + _PANEL_HEIGHT * len(panels),
    )


def _marks(names: list[str], statistic: ProfileStatistic, *, in_legend: bool) -> list[go.Scatter]:
    null = go.Scatter(
        x=names,
        y=statistic.null_mean.numpy(),
        error_y={"array": _REACH * statistic.null_sd.numpy(), "color": NULL, "thickness": 2},
        name="null: permuted steps",
        mode="markers",
        marker={"color": NULL, "symbol": "line-ew-open", "size": 10, "line": {"width": 2}},
        showlegend=in_legend,
    )
    data = go.Scatter(
        x=names,
        y=statistic.observed.numpy(),
        customdata=np.round(statistic.p.numpy(), 4),
        hovertemplate="%{y:.4g}, p = %{customdata}",
        name="data",
        mode="markers",
        marker={"color": DATA, "size": 8},
        showlegend=in_legend,
    )
    return [null, data]
