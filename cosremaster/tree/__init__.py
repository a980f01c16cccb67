"""File-system nodes, edits of them, and paths: the words that overlays, layers and images share."""
