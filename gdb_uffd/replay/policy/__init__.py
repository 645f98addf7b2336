"""What the called program may ask of the kernel, what it is told instead, and what it waits for.

Below the vessel: syscalls, policy, identity, limits.  Above it, as it reads what came of them:
refused, waiting, proc_files.
"""
