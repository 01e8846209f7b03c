"""`python -m cinetune`."""

import sys

from cinetune.cli import main

if __name__ == "__main__":
    sys.exit(main())
