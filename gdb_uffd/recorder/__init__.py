"""The recorder, a process of its own: from a live process's instants to a trace's snapshots.

It may import `native` and `trace`, and what needs nothing itself (`arch`, `protocol`, ...).  gdb's
side takes `wire` alone of it, which imports nothing of the program."""
