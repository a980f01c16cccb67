"""gzip: reading streams, and packing them again around the deflate blocks that stay."""
