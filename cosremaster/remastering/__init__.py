"""The remaster: request, plan, packing, writing and result."""
