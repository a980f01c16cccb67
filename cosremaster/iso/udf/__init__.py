"""UDF (ECMA-167, OSTA UDF 2.60) beside ISO 9660: read, patched and rewritten."""
