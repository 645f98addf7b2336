"""The files that the recorded process had mapped: found by path, by build-id, in folders,
archives and images that a user names, from debuginfod; and whether they have the bytes of those
that were mapped.  What is compressed is unpacked here.

It may import core's formats (elf, notes) and source; not store."""
