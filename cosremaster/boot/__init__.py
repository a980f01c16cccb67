"""Boot records: El Torito, the MBR, and the pointers inside boot images, each parsed and packed."""
