"""The ISO 9660 image: read, planned anew, encoded, proved."""
