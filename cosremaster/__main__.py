"""``python -m cosremaster``: the same program as ``cosremaster``."""

import sys

from cosremaster.cli import main

sys.exit(main())
