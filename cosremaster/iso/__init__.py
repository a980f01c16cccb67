"""ISO 9660 images: read one, plan a changed one, encode it, prove it."""
