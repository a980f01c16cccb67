"""Archives of other formats, read through libarchive."""
