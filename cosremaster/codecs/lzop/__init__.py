"""lzop: reading streams."""
