"""What was recorded: the snapshot interface, and the ELF core that offers it."""
