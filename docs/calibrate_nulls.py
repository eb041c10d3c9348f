"""Measure how often each rule sees structure in noise, and how often it finds what was planted.

    pip install -e '.[bench]'                        # for the packages that are compared
    python docs/calibrate_nulls.py                   # measure: about 25 minutes on one core
    python docs/calibrate_nulls.py --only counting   # this part; the others are kept
    python docs/calibrate_nulls.py --page            # only write the tables again

Writes results/calibration/nulls.json (rates with Wilson intervals) and the tables of docs/nulls.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from calibration import comparing, counting

HERE = Path(__file__).parent
PAGE, NUMBERS = HERE / "nulls.md", HERE.parent / "results" / "calibration" / "nulls.json"
PARTS = {"counting": counting, "comparing": comparing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    for part in [] if arguments.page else arguments.only:
        torch.set_num_threads(1)
        keep(part, measured(part))
    text = PAGE.read_text(encoding="utf-8")
    for part, numbers in stored().items():
        text = with_tables(text, part, numbers)
    PAGE.write_text(text, encoding="utf-8")


def measured(part: str) -> dict:
    start = time.process_time()

    def say(what: str) -> None:
        sys.stderr.write(f"{part}, {what}: {time.process_time() - start:.0f} s\n")

    numbers = PARTS[part].measure(say)
    seconds = round(time.process_time() - start)
    return numbers | {"cpu_seconds": seconds, "torch": torch.__version__}


def stored() -> dict:
    return json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}


def keep(part: str, numbers: dict) -> None:
    NUMBERS.parent.mkdir(parents=True, exist_ok=True)
    content = stored() | {part: numbers}
    NUMBERS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def with_tables(text: str, part: str, numbers: dict) -> str:
    """The page with the tables of one part between its two marks."""
    begin, end = f"<!-- {part}: written by calibrate_nulls.py -->", f"<!-- end of {part} -->"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    minutes = f"Measured in {numbers['cpu_seconds'] / 60:.0f} minutes of one core."
    body = "\n\n".join([*PARTS[part].tables(numbers), minutes])
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


if __name__ == "__main__":
    main()
