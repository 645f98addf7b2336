"""What is run: the vessel (a rebuilt process) and the diversion (its effects, kept or undone)."""
