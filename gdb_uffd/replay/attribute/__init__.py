"""Whose bytes these are: the heap of the C library's malloc, and who holds its blocks."""
