"""Boot structures: partition tables, the El Torito boot catalog, FAT, and pointers in boot code; a file for each."""
