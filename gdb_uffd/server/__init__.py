"""gdb's remote serial protocol over a unix socket, in front of a snapshot and its diversion.

From below, each may import those before it: stub's framing and packets; listen's endpoint and
connection; navigator (where the user stands in a trace), session; the rest of stub; requests, and
stub/stub.py, which answers each packet by one of both; listen/serve.py; __main__.  Sentences for
who knows none of our requests (lldb, a plain `continue`) are those of client/show/ends.py.
"""
