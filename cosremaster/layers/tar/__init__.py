"""The tar layer format: v7, ustar, pax and GNU archives, indexed, edited and checked."""
