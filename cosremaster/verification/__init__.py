"""Verifying an image: every pointer, where it leads, and whether it holds. Findings are values."""
