"""Directories that change: entries matched, applied and serialized in every tree of an image."""
