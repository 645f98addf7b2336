"""What the called program may ask of the kernel, what it is told instead, and what it waits for."""
