"""Checksum lists on an ISO's tree: read and write them byte for byte, and correct them for a changed tree."""
