"""``python -m phasescope.cli``."""

import sys

from phasescope.cli import main

if __name__ == "__main__":
    sys.exit(main())
