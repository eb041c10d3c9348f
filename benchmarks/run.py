"""Runs the benchmarks, prints their table, and writes results.json and the table in README.md."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUBJECTS = {
    "gram": "gram_from_disk",
    "gram-recorder": "gram_recorder_layout",
    "svd": "singular_values",
    "sign-flips": "sign_flips",
    "import": "import_time",
    "recording": "recording",
    "sketch": "sketching",
    "components": "component_norms",
    "grokking": "grokking",
    "s_curves": "ensembles",
    "monosemanticity": "monosemanticity",
    "measures": "measure_pass",
    "matching": "matching",
}
# They pick slow kernels for OpenBLAS, and so make every comparison with NumPy flattering.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def main() -> None:
    arguments = parse_arguments()
    removed = [name for name in SLOWING if os.environ.pop(name, None) is not None]
    for name in removed:
        print(f"warning: {name} was set; it is removed here, as it changes NumPy", file=sys.stderr)

    # Only now, because OpenBLAS reads its variables when it is loaded.
    import results

    arguments.scratch.mkdir(parents=True, exist_ok=True)
    measured = {}
    for subject in arguments.only:
        print(f"{subject} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(SUBJECTS[subject])
        rows = module.rows(quick=arguments.quick, scratch=arguments.scratch)
        environment = {**results.environment(), "removed_variables": removed}
        measured[subject] = {"environment": environment, "rows": [r.to_json() for r in rows]}
    if arguments.json:
        print(json.dumps(measured, indent=2))
    else:
        results.show(measured)
    if not arguments.quick:
        merged = results.merge(HERE / "results.json", measured, order=list(SUBJECTS))
        results.write_readme(HERE / "README.md", merged)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the code; nothing is written"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="these subjects"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=HERE.parent / "runs",
        help="folder on a local disk with 9 GB free (default: runs/); emptied again",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
