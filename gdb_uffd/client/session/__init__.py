"""What gdb holds: which inferior has which server, how that is started, connected and ended,
settings, gdb's caches, and the one place where gdb is asked (asking.py, frames.py).  Imports
`show`."""
