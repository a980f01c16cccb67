"""The places of all data in a new image, and the patches of every structure that points at them."""
