"""What gdb_uffd's own commands ask of the server, a file a subject (docs/protocol.md).

It may import `replay`, `trace`, `native`, and of server: navigator, session and stub; of it, stub's
stub.py imports `answer`, and listen/serve.py `server`.  registry is below all other files, answer
above them."""
