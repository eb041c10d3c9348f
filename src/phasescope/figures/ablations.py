"""Figure of an ablation: a measure against its strength, beside the controls."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, MUTED, NULL, plain, styled
from phasescope.interventions import Ablation

_COLUMNS = 3


def ablation_curves(
    ablation: Ablation, labels: Sequence[str], *, quantity: str = "loss (nats)"
) -> go.Figure:
    """A measure against the strength of an ablation, a panel for every class, phase or task.

    The ablated model is a thick line; every control is a thin one: random directions of the whole
    space, and of the subspace that the part belongs to, along which the weights move as far.

    Args:
        ablation: From `ablate`.
        labels: A name for each measured number.
        quantity: What was measured, with its unit.

    Returns:
        The figure.

    Raises:
        ValueError: If there is not one label per measured number.

    Example:
        >>> import torch
        >>> from phasescope.components import Subspace
        >>> from phasescope.interventions import ablate
        >>> line = torch.nn.Linear(2, 1, bias=False)
        >>> found = ablate(line, torch.zeros(2), Subspace("x", torch.eye(2)[:1]), lambda m: 1.0)
        >>> len(ablation_curves(found, ["constant"]).data)
        21
    """
    n = ablation.values.shape[1]
    if len(labels) != n:
        raise ValueError(
            f"ablation_curves needs a label for each of the {n} measured numbers, but got "
            f"{len(labels)}."
        )
    rows = -(-n // _COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=min(n, _COLUMNS),
        shared_xaxes=True,
        subplot_titles=[plain(label) for label in labels],
        vertical_spacing=0.28 / max(rows, 2),
        horizontal_spacing=0.09,
    )
    groups = (
        (ablation.controls, "random direction", NULL, "dot", 1.0),
        (ablation.controls_within, "random direction of the subspace", MUTED, "solid", 1.0),
        (ablation.values[None], "ablated", DATA, "solid", 3.0),
    )
    for i in range(n):
        where = {"row": i // _COLUMNS + 1, "col": i % _COLUMNS + 1}
        for values, name, color, dash, width in groups:
            for j, curve in enumerate(values[:, :, i].tolist()):
                figure.add_scatter(
                    x=ablation.alphas,
                    y=curve,
                    name=name,
                    mode="lines+markers" if width > 1 else "lines",
                    line={"color": color, "width": width, "dash": dash},
                    opacity=1.0 if width > 1 else 0.45,
                    legendgroup=name,
                    showlegend=i == 0 and j == 0,
                    **where,
                )
    for column in range(1, min(n, _COLUMNS) + 1):
        last = (n - column) // _COLUMNS + 1
        figure.update_xaxes(title_text="strength α", showticklabels=True, row=last, col=column)
    figure.update_yaxes(title_text=quantity, col=1)
    counts = [len(values) for values, *_ in groups[:2]]
    share = ablation.removed / ablation.displacement
    return styled(
        figure,
        title="Taking a part of the training out",
        seen=(
            f"{quantity} against the strength: 0 is the trained model, 1 without the part, 2 with "
            f"its opposite. Thick: the ablated model; thin: {counts[0]} random directions of all "
            f"parameters (dotted) and {counts[1]} of the subspace."
        ),
        computed=(
            "Weights w - α BᵀB (w - w0). The part is "
            f"{100 * share:.3g}% of the length of the displacement ({ablation.removed:.3g} of "
            f"{ablation.displacement:.3g}); each control moves the weights as far."
        ),
        misleads=(
            "Random directions of all parameters hardly touch what training did, so almost any "
            "part does more than they: compare with those of the subspace."
        ),
        height=150 + 210 * rows,
    )
