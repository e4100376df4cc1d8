"""``python -m convext`` is the command ``convext``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
