"""Estimate how much memory a machine needs to boot the contents of an initramfs (docs/memory.md)."""
