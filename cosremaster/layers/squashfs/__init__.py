"""Squashfs 4.0 as a layer format (Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h of Linux)."""
