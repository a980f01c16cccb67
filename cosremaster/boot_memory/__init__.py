"""How much memory a machine needs to boot what an initramfs holds (docs/memory.md)."""
