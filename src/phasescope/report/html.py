"""The report: claims, figures and numbers in one HTML file that needs nothing else."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from phasescope.report.claims import Claim, measured
from phasescope.report.plain import plain_value
from phasescope.trajectory.files import write_atomic

_CAPTION = ("title", "seen", "computed", "misleads")

# JSON inside a script element: none of these may end the element or open a comment in it.
_UNSAFE_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class _FigureView:
    """What the template needs of a figure."""

    name: str
    caption: Mapping[str, str]
    height: int


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: str,
    claims: Iterable[Claim],
    figures: Mapping[str, Figure],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    numbers: Mapping[str, Any],
) -> Path:
    """The path of one HTML file with claims, figures, configuration and downloads in it.

    The file loads nothing from anywhere (a content security policy in it forbids it) and shows
    strings as they are. Every number can be downloaded from it: claims, configuration, environment
    and `numbers` as JSON, the claims as CSV, the points of each figure as CSV. NaN and infinity are
    null in the JSON.

    Args:
        path: The file; its folder is made if missing.
        title: Title of the report.
        summary: One paragraph: what was done and what came out.
        claims: The claims, in the order they are shown.
        figures: Figures by name; the name is that of the downloaded file. Each has its caption in
            `layout.meta`, as the functions of `phasescope.figures` leave it.
        config: Configuration of the experiment.
        environment: Versions and hardware.
        numbers: Everything else that was measured.

    Returns:
        The path.

    Raises:
        ValueError: If a figure has no caption.
        TypeError: If something has no JSON form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(
        ...         Path(folder) / "report.html", title="Toy", summary="Nothing was done.",
        ...         claims=[], figures={}, config={"lr": 0.1}, environment={}, numbers={},
        ...     )
        ...     "<h1>Toy</h1>" in path.read_text(encoding="utf-8")
        True
    """
    claims = tuple(claims)
    views = [_view(name, figure) for name, figure in figures.items()]
    record = {
        "title": title,
        "summary": summary,
        "claims": claims,
        "config": config,
        "environment": environment,
        "numbers": numbers,
    }
    scripts = {"plotly": plotly_script(), "page": _resource("page.js")}
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_resource("template.html.jinja"))
    html = template.render(
        title=title,
        summary=summary,
        claims=[(claim, measured(claim)) for claim in claims],
        figures=views,
        tables={"Configuration": _rows(config), "Environment": _rows(environment)},
        style=_inline(page_style()),
        scripts={name: _inline(text) for name, text in scripts.items()},
        hashes=" ".join(_hash(text) for text in scripts.values()),
        record=_embedded(json.dumps(plain_value(record, "report"), allow_nan=False)),
        drawings=_embedded(_drawings(figures)),
    )
    write_atomic(path, html)
    return Path(path)


def page_style() -> str:
    """The style sheet of the report's pages."""
    return _resource("page.css")


def plotly_script() -> str:
    """The script that draws figures, as plotly.py ships it."""
    return get_plotlyjs()


def _view(name: str, figure: Figure) -> _FigureView:
    layout: Any = figure["layout"]
    caption = layout.meta
    missing = [key for key in _CAPTION if not isinstance(caption, Mapping) or not caption.get(key)]
    if missing:
        raise ValueError(
            f"every figure of a report needs a caption, but layout.meta of figure {name!r} has no "
            f"{', '.join(missing)}. Set figure.layout.meta = "
            "{'title': ..., 'seen': ..., 'computed': ..., 'misleads': ...}."
        )
    return _FigureView(name, caption, int(layout.height or 440))


def _drawings(figures: Mapping[str, Figure]) -> str:
    """JSON of all figures, in order: plotly writes its own."""
    items = (
        f'{{"name":{json.dumps(name)},"file":{json.dumps(_file_name(name))},"figure":{figure.to_json()}}}'
        for name, figure in figures.items()
    )
    return f"[{','.join(items)}]"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "figure"


def _rows(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Name and value of every entry; names of nested mappings are joined by dots."""
    rows = []
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            rows += _rows(value, f"{prefix}{key}.")
        else:
            shown = value if isinstance(value, str | float) else json.dumps(plain_value(value, key))
            rows.append((f"{prefix}{key}", str(shown)))
    return rows


def _resource(name: str) -> str:
    return files("phasescope.report").joinpath(name).read_text(encoding="utf-8")


def _inline(text: str) -> Markup:
    return Markup(text)


def _embedded(text: str) -> Markup:
    return _inline(text.translate(_UNSAFE_IN_SCRIPT))


def _hash(script: str) -> str:
    """The script's name in a content security policy: only scripts named there run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
