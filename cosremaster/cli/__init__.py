"""The command line: arguments, terminal progress, exit codes. The only place that prints or exits."""

from cosremaster.cli.entry import main

__all__ = ["main"]
