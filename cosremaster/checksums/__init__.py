"""Lists of sums on an ISO's tree: read and written byte for byte, and made true for a changed tree."""
