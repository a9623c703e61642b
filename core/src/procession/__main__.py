"""``python -m procession``: the command line."""

from __future__ import annotations

import sys

from procession.cli import main

# The guard matters: a fresh interpreter imports this module again, as any main module.
if __name__ == "__main__":
    sys.exit(main())
