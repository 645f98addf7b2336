"""Where a server listens, who may connect, and from a core or a trace to a served connection."""
