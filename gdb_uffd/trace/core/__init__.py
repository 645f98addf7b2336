"""ELF cores: reading their headers, notes and registers with bounds, and writing them.

It may import files, and what stands beside the folders of trace but opening; not store."""
