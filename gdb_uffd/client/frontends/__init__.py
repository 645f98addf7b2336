"""Where gdb itself begins: its events, its machine interface, its text user interface.  Imports
any folder of the client."""
