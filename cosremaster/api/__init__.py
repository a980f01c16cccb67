"""The public face: an image with its verbs, and the values that it returns."""
