"""Images of sites over HTTP that are never written: for virtual media of BMCs, and network boot."""
