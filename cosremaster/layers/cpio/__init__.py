"""The cpio layer format: newc, odc and binary archives, indexed, edited and checked."""
