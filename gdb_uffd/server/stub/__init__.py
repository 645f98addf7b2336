"""gdb's remote serial protocol: packets, registers, memory, threads, stops, files.  Asks the
session and its diversion; knows nothing of what our own requests mean."""
