"""What a person or a program reads: text, JSON and HTML, made of the data of `protocol`.  One
report, many renderers; sentences are made here and taken apart nowhere.  Nothing here imports
gdb, nor another folder of the client: the server and the shell print by it, too."""
