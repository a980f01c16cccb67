"""EROFS, the Enhanced Read-Only File System of Linux, as a layer format."""
