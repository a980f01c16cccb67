"""Volume descriptors, directory records, identifiers, dates and file sections of ECMA-119 (ISO 9660)."""
