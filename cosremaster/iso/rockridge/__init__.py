"""SUSP and Rock Ridge system use entries, read and written; zisofs files."""
