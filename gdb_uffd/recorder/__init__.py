"""The recorder, a process of its own: from a live process's instants to a trace's snapshots."""
