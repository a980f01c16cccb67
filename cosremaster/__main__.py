"""``python -m cosremaster``: the same program as ``cosremaster``."""

from cosremaster.cli import run_process

run_process()
