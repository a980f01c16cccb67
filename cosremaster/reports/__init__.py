"""Reports: what was found or done, rendered for people."""
