"""Recorded traces, NAME.uffd: the format, its index and page file, reading, writing, packing,
verifying (docs/trace-format.md).

It may import all of trace."""
