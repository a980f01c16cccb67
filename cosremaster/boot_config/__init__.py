"""Change how an image boots, apart from its files: kernel arguments in its boot menus, the volume's id and date.

A package of its own: it joins menus (text), FAT (a file system) and the ISO, which do not know each other.
"""
