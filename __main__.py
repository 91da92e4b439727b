"""``python -m langsamp`` and ``torchrun -m langsamp``: the same command line as ``langsamp``."""

import sys

from langsamp.cli import main

if __name__ == "__main__":  # worker processes import it under another name
    sys.exit(main())
