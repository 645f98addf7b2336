"""The last call once more, in another process of the same snapshot: every write to one object
(`uffd why`, play.py), the first touch of each page (`uffd trace`, first_touch.py).

log (what gdb did), clone (the other process) and last_run are below the diversion, which keeps
them; play and first_touch drive one.
"""
