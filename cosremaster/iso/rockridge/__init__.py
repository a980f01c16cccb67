"""System use fields of SUSP and Rock Ridge, and files that zisofs compresses."""
