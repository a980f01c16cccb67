"""Fuzzing: whole images, layers, FAT file systems, menus, mtree files, recipes and remembered indexes.

`python -m tests.fuzz 600` (or `make fuzz SECONDS=600`) fuzzes for that long, with atheris where there is a wheel of it
for this Python, else with the same mutations and no feedback. `corpus` makes a small bad file for each fault that was
seen once; `tests/tools/test_fuzz_corpus.py` replays them.
"""
