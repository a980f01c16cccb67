"""Disk images with a partition table: their partitions, which are read and never changed."""
