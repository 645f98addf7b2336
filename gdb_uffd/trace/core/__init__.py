"""ELF cores: reading their headers, notes and registers with bounds, and writing them."""
