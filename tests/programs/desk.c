/* A process with open descriptors of many kinds, which are gone when it is rebuilt. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int file, reading, writing, listening, asking, local;
char buffer[16];

__attribute__((noinline)) void ready(void)
{
	__asm__ volatile("" ::: "memory");
}

long ask(int fd)
{
	return read(fd, buffer, sizeof(buffer));
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un named = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(at);
	int ends[2];

	if (argc < 3 || chdir(argv[1]) < 0 || pipe(ends) < 0)
		return 1;
	reading = ends[0];
	writing = ends[1];
	file = open(argv[2], O_RDONLY | O_CREAT, 0600);
	listening = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listening, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listening, 1) < 0)
		return 2;
	getsockname(listening, (struct sockaddr *)&at, &len);
	asking = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(asking, (struct sockaddr *)&at, sizeof(at)) < 0)
		return 3;
	local = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(named.sun_path, "bell");
	if (bind(local, (struct sockaddr *)&named, sizeof(named)) < 0)
		return 4;
	ready();
	return 0;
}
