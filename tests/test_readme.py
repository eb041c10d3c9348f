"""The README's example runs as it stands, and its tree names files that exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run_script(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a script of its own in a folder; warnings are errors."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process


def test_the_shortest_example_runs_as_written(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    process = run_script(code, tmp_path)
    assert re.match(r"\d+ singular values above 10%", process.stdout)
    assert (tmp_path / "scree.html").stat().st_size > 1000
    assert (tmp_path / "runs" / "mine" / "run.json").exists()


def test_the_guide_to_recording_runs_twice_as_written(tmp_path):
    """The second time it resumes the finished run, as it says."""
    guide = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL))
    for _ in range(2):
        process = run_script(code, tmp_path)
        assert "norms alone" in process.stdout


def test_the_tree_names_every_module_and_only_those_that_exist():
    tree = README.split("## Where things are")[1].split("```")[1]
    named = set(re.findall(r"(\w+\.py)", tree))
    package = ROOT / "src" / "phasescope"
    existing = {path.name for path in package.rglob("*.py")}
    assert named <= existing
    for folder in (package, package / "trajectory", package / "analysis"):
        modules = {p.name for p in folder.glob("*.py")} - {"__init__.py"}
        assert modules <= named, modules - named
