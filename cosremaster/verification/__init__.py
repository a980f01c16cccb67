"""Verify an image: follow every pointer, and check that it leads to the right place. Findings are values."""
