"""Read archives of many formats through libarchive."""
