"""Bytes: forward streams, the piece table, sources and outputs, ordered work on threads."""
