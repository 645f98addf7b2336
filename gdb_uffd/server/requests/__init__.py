"""What gdb_uffd's own commands ask of the server, a file a subject (docs/protocol.md)."""
