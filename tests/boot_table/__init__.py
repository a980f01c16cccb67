"""Measures what docs/boot.md tells, and renders it. `python -m tests.boot_table` (or `make boot-table`) does both.

The marks come from runs of this machine: nothing in the table is written by hand. A boot is proved by the words that
the image's loader reads from a file of its tree and prints on the serial line.
"""
