"""Run a script in a file system, without root: what it changes comes back as nodes and removed paths."""
