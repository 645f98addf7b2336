"""Where a server listens, who may connect, and from a core or a trace to a served connection.

addresses, searching, holder, endpoint and connection may import of server only stub's framing and
each other; serve, which starts all of it, may import all of server, and `replay` and `trace`."""
