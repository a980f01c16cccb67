"""Where extents stand in a new image, and the pointers that follow them."""
