"""An image, its original and what was found about both as one page of HTML that needs nothing else (docs/html.md)."""
