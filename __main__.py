"""``python -m langsamp`` and ``torchrun -m langsamp``: the same command line as ``langsamp``."""

import sys

from langsamp.cli import main

sys.exit(main())
