"""The import layers of the package, and the few rules about its files.

The rules are checked on the source text, so an import inside a function counts too. Under
TYPE_CHECKING the layers hold as well, but a library may be named there for its types.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "phasescope"
MAX_LINES = 400

# A part may import itself and the parts listed beside it, nothing else of the package.
FOUNDATION = ("errors", "parameters", "components", "splitmix", "datasets", "models")
MAY_IMPORT = {
    "errors": (),
    "ranges": (),
    "parameters": ("errors", "ranges"),
    "components": ("errors", "parameters", "models"),
    "splitmix": (),
    "datasets": ("errors", "parameters"),
    "models": ("errors", "parameters", "datasets"),
    "analysis": FOUNDATION,
    "trajectory": FOUNDATION,
    "training": (*FOUNDATION, "trajectory"),
    "integrations": ("errors", "datasets", "trajectory"),
    "interventions": (*FOUNDATION, "analysis", "trajectory", "training"),
    "figures": (*FOUNDATION, "analysis", "trajectory", "training", "interventions"),
}
MAY_IMPORT["report"] = (*MAY_IMPORT["figures"], "figures")
MAY_IMPORT["live"] = (*MAY_IMPORT["report"], "report")
MAY_IMPORT["experiments"] = (*MAY_IMPORT["report"], "report", "integrations")
MAY_IMPORT["sweeps"] = (*MAY_IMPORT["experiments"], "experiments")
MAY_IMPORT["cli"] = (*MAY_IMPORT["sweeps"], "live", "sweeps")

# `import phasescope` itself would be a cycle in anything that it loads.
MAY_IMPORT_WHOLE_PACKAGE = ("experiments", "sweeps", "cli")
ONLY_IN = {"plotly": ("figures", "report"), "dask": ("sweeps",), "distributed": ("sweeps",)}
TRAINERS_AND_TRACKERS = ("accelerate", "lightning", "tensorboard", "transformers", "wandb")
ONLY_IN |= dict.fromkeys(TRAINERS_AND_TRACKERS, ("integrations",))
ONLY_IN |= dict.fromkeys(("gymnasium", "stable_baselines3"), ("integrations", "experiments"))
NO_CATCH_ALLS = ("utils", "helpers", "common", "core", "misc")
HEAVY = ("dask", "plotly", "rich", "scipy", "sklearn", "tyro", "xarray", "zarr")
HEAVY += (*TRAINERS_AND_TRACKERS, "gymnasium", "stable_baselines3")


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of everything imported; the name is empty for `import module`."""
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            if node not in for_types or module.startswith((".", "phasescope")):
                yield node.lineno, module, name


def import_problem(part: str, module: str, name: str) -> str | None:
    """Why `part` may not import `name` from `module`; None where it may."""
    top, _, rest = module.partition(".")
    if module.startswith("."):
        return "relative import"
    if top in ONLY_IN and part not in ONLY_IN[top]:
        return f"only {' and '.join(ONLY_IN[top])} may import {top}"
    if top != "phasescope" or part == "__init__":
        return None
    if part == "experiments" and any(word.startswith("_") for word in [*module.split("."), name]):
        return f"experiments may use public names only, not {module}.{name}"
    # `from phasescope import analysis` imports that part, `from phasescope import gram` everything.
    target = rest.split(".")[0] or (name if name in MAY_IMPORT else "")
    if not target:
        return None if part in MAY_IMPORT_WHOLE_PACKAGE else f"{part} may not import phasescope"
    if target == part or target in MAY_IMPORT[part]:
        return None
    return f"{part} may not import {target}"


def problems(package: Path) -> list[str]:
    """Every broken rule in a package's source, as `file:line: what is wrong`."""
    found = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        part = Path(inside.parts[0]).stem
        text = path.read_text(encoding="utf-8")
        n_lines = len(text.splitlines())
        if n_lines > MAX_LINES:
            found.append(f"{inside}:{n_lines}: more than {MAX_LINES} lines")
        if {Path(word).stem for word in inside.parts} & set(NO_CATCH_ALLS):
            found.append(f"{inside}:1: a file is named for its one job")
        if part != "__init__" and part not in MAY_IMPORT:
            found.append(f"{inside}:1: {part} has no place in the import layers")
            continue
        for line, module, name in imports(ast.parse(text)):
            if problem := import_problem(part, module, name):
                found.append(f"{inside}:{line}: {problem}")
    return found


def test_the_package_keeps_its_import_layers_and_file_rules():
    assert len(list(PACKAGE.rglob("*.py"))) > 5
    assert problems(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("errors.py", "import phasescope.models", "errors may not import models"),
        ("parameters.py", "from phasescope import models", "parameters may not import models"),
        ("analysis/gram.py", "from phasescope.trajectory.reader import Series", "analysis may not"),
        ("analysis/gram.py", "from phasescope.training import loop", "analysis may not"),
        ("analysis/gram.py", "if 1:\n  import phasescope.figures", "gram.py:2: analysis may"),
        ("trajectory/reader.py", "from phasescope.analysis import gram", "trajectory may not"),
        ("trajectory/reader.py", "from phasescope import open_run", "trajectory may not import"),
        ("trajectory/reader.py", "from phasescope.training import loop", "trajectory may not"),
        ("figures/scree.py", "from phasescope.report import page", "figures may not import"),
        ("report/page.py", "import phasescope.experiments.grokking", "report may not import"),
        ("experiments/grokking.py", "import phasescope.cli", "experiments may not import cli"),
        ("experiments/grokking.py", "from phasescope.analysis import _sums", "public names only"),
        ("experiments/grokking.py", "from phasescope._gram import sums", "public names only"),
        ("sweeps.py", "import phasescope.cli", "sweeps may not import cli"),
        ("analysis/gram.py", "import plotly.graph_objects as go", "only figures and report"),
        (
            "cli.py",
            "if TYPE_CHECKING:\n  pass\nelse:\n  import dask",
            "only sweeps may import dask",
        ),
        ("analysis/a.py", "if TYPE_CHECKING:\n  import phasescope.figures", "analysis may not"),
        ("cli.py", "from plotly import io", "only figures and report may import plotly"),
        ("analysis/gram.py", "import dask.array", "only sweeps may import dask"),
        ("trajectory/sinks.py", "import wandb", "only integrations may import wandb"),
        ("integrations/x.py", "from phasescope.training import loop", "integrations may not"),
        ("analysis/gram.py", "from . import spectrum", "relative import"),
        ("analysis/gram.py", "from ..errors import RunError", "relative import"),
        ("analysis/gram.py", "x = 1\n" * 401, "more than 400 lines"),
        ("analysis/utils.py", "", "named for its one job"),
        ("common/gram.py", "", "named for its one job"),
        ("plots/scree.py", "", "plots has no place in the import layers"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, problem: str):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    found = problems(tmp_path)
    assert any(problem in line for line in found), found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("__init__.py", "from phasescope.analysis.gram import gram"),
        ("analysis/spectrum.py", "import torch\nfrom phasescope.analysis.gram import _sums, gram"),
        ("training/loop.py", "from phasescope.trajectory.recorder import Recorder"),
        ("figures/scree.py", "import plotly\nfrom phasescope.analysis.spectrum import Spectrum"),
        ("experiments/grokking.py", "import phasescope as ps\nfrom phasescope import gram"),
        ("cli.py", "import phasescope as ps\nfrom phasescope import sweeps"),
        ("sweeps.py", "from dask import distributed"),
        (
            "experiments/grokking.py",
            "if TYPE_CHECKING:\n    from plotly.graph_objects import Figure",
        ),
    ],
)
def test_a_permitted_import_is_let_through(tmp_path: Path, file: str, text: str):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert problems(tmp_path) == []


def test_importing_the_package_loads_no_heavy_library():
    code = f"import sys, phasescope; print(*({set(HEAVY)!r} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
