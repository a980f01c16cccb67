"""Layers: the archives and file systems inside an image, how they are found, addressed, indexed and changed."""
