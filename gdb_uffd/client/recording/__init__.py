"""`uffd record` inside of gdb: when a snapshot is taken, how the program stands still for it, and
what the recorder process is told.  Imports `session`, `names` and `show`."""
