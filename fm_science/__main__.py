"""``python -m fm_science`` is the command ``fm-science``."""

import sys

from fm_science.cli import main

if __name__ == "__main__":
    sys.exit(main())
