"""What is set on an image beside its files: kernel arguments in its boot menus, the volume's id and its date.

A room of its own: it joins menus (text), FAT (a file system) and the ISO, which do not know each other.
"""
