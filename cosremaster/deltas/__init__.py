"""Deltas: a new image as the difference from its base, in the format VCDIFF."""
