"""Deliveries: formats, rates, overlays, signatures; every file is read back before it gets its name."""
