"""What changed, in the program's words: variables, members, blocks of the heap, pointers, locals,
thread-locals, containers, locks and exceptions.  Imports `session` and `show`."""
