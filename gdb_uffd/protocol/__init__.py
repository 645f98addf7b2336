"""What both sides share: the data of requests and reports, and how it crosses a socket.  Nothing
of ours is imported here but `arch`."""
