"""Overlays: what the user adds, as nodes, and the rules by which it is laid over a file system."""
