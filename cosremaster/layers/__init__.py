"""Layers: the cpio archives inside an image, how they are found, addressed, indexed and changed."""
