"""``python -m langsamp`` and ``torchrun -m langsamp``: the same command line as ``langsamp``."""

import sys

if __name__ == "__main__":  # worker processes import it under another name
    try:
        from langsamp.cli import main
    except KeyboardInterrupt:  # nothing has begun
        sys.exit(130)
    sys.exit(main())
