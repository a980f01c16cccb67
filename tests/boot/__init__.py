"""Tests that boot images under QEMU."""
