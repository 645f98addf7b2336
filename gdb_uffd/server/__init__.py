"""gdb's remote serial protocol over a unix socket, in front of a snapshot and its diversion."""
