"""The commands, a file each: class, help, options, completion, and what it does.  Imports any
folder of the client but `frontends`; ../../commands.py registers what stands here."""
