"""gdb_uffd: call functions in core dumps, and see which memory the call changed."""

__version__ = "0.1.0"
