"""Whose bytes these are: the heap of the C library's malloc, and who holds its blocks.

It reads memory through replay's views, and knows nothing of how a call is run; heap_report alone
is given a diversion.
"""
