"""gdb's side: plain modules, and `gdb_*.py`, which alone may import gdb."""
