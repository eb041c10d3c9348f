"""What the package promises in public: names, examples and documentation agree."""

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"
# Parts whose own names are public too, beside those that the package itself exports.
PARTS = ("components", "datasets", "errors", "figures", "interventions", "live", "models", "report")
PARTS += ("sweeps", "training", "analysis.grokking")
# Each needs the extra of its library and lists its names itself.
INTEGRATIONS = ("huggingface", "lightning", "mazes", "tensorboard", "wandb")


def exported_names(module: ModuleType) -> set[str]:
    """What a module takes from the package or defines itself, read off its top level."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phasescope"):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def public_names() -> dict[str, object]:
    """Every public name below `phasescope.`, and what it names."""
    package = importlib.import_module("phasescope")
    names = {name: getattr(package, name) for name in package.__all__}
    names = {name: value for name, value in names.items() if not inspect.ismodule(value)}
    for part in PARTS:
        module = importlib.import_module(f"phasescope.{part}")
        for name in exported_names(module):
            if getattr(package, name, None) is not getattr(module, name):
                names[f"{part}.{name}"] = getattr(module, name)
    for part in INTEGRATIONS:
        module = importlib.import_module(f"phasescope.integrations.{part}")
        names |= {f"integrations.{part}.{name}": getattr(module, name) for name in module.__all__}
    return names


def needs_an_example(value: object) -> bool:
    """Whether a user calls it: exceptions, protocols and plain results are left out."""
    if inspect.isclass(value):
        return not (
            issubclass(value, Exception)
            or dataclasses.is_dataclass(value)
            or getattr(value, "_is_protocol", False)
        )
    return inspect.isroutine(value)


def documented_names(text: str) -> list[str]:
    """The names below `phasescope.` that a page documents, in order."""
    directive = r"^\s*\.\. auto(?:function|class|exception|data):: phasescope\.(\S+)\s*$"
    return re.findall(directive, text, flags=re.MULTILINE)


PACKAGES = ["phasescope", *(f"phasescope.{part}" for part in PARTS if part != "errors")]


@pytest.mark.parametrize("path", PACKAGES)
def test_all_lists_exactly_the_names_that_a_package_exports(path: str):
    module = importlib.import_module(path)
    listed = list(module.__all__)
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if name.startswith("_") or not hasattr(module, name)] == []
    # Parts may be listed without being imported: they are loaded when they are first used.
    lazy = {name for name in listed if inspect.ismodule(getattr(module, name))}
    assert set(listed) - lazy == exported_names(module)


def test_every_public_function_and_class_has_a_docstring():
    without = [
        name
        for name, value in public_names().items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ]
    assert without == []


def test_everything_a_user_calls_shows_an_example_that_runs():
    without = [
        name
        for name, value in public_names().items()
        if needs_an_example(value) and ">>> " not in (inspect.getdoc(value) or "")
    ]
    assert without == []


def test_every_public_name_stands_on_the_api_page_exactly_once():
    documented = documented_names((DOCS / "api.md").read_text(encoding="utf-8"))
    assert sorted(documented) == sorted(public_names())


def test_no_other_page_documents_a_name_again():
    pages = [path for path in DOCS.rglob("*.md") if path.name != "api.md"]
    assert pages
    assert {
        path.name: names
        for path in pages
        if (names := documented_names(path.read_text(encoding="utf-8")))
    } == {}


def test_the_checks_see_a_missing_example_and_a_doubled_name():
    def bare():
        """Nothing."""

    page = ".. autofunction:: phasescope.gram\n.. autoclass:: phasescope.gram\n   :members:\n"
    assert needs_an_example(bare)
    assert needs_an_example(type("Tool", (), {}))
    assert not needs_an_example(ValueError)
    assert documented_names(page) == ["gram", "gram"]
