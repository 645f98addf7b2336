"""gdb's side: what runs inside of gdb, with gdb's own Python (3.9 or later) and the standard
library only.  It imports `protocol`, `arch` and recorder/wire.py, never the server's side.  Its
folders, each of which may import those before it: show (no gdb there), session, names, recording,
commands, frontends."""
