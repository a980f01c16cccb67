"""The records of ECMA-119 (ISO 9660) volumes."""
