"""xz: reading streams, and packing them again around the blocks and chunks that stay."""
