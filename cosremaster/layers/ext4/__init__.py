"""The ext2, ext3 and ext4 file systems of disk images, which are read (Linux, Documentation/filesystems/ext4)."""
