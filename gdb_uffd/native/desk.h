/* desk.h - what the answered system calls change: the program's descriptors, its working directory,
 * its clock.  All of it lies in the server; an undone call brings back what was. */
#ifndef GDB_UFFD_DESK_H
#define GDB_UFFD_DESK_H

#include <stdbool.h>
#include <stdint.h>

#define OPENED_MAX 256      /* open files at a time */
#define DESCRIPTORS_MAX 1024 /* RLIMIT_NOFILE as it is answered */

enum opened_kind {
	OPENED_NOTHING = 0, /* a free slot */
	OPENED_FILE,        /* a regular file */
	OPENED_DIRECTORY,
	OPENED_PATH,   /* O_PATH */
	OPENED_INPUT,  /* the recorded stdin: empty */
	OPENED_OUTPUT, /* the recorded stdout, stderr */
	OPENED_SOCKET, /* made by socket(2), and nothing comes of it */
};

/* An open file description. */
struct opened {
	int fd; /* the server's own descriptor, read-only; -1: none */
	uint8_t kind;
	uint16_t refs; /* descriptors, and the working directory */
	uint32_t flags; /* O_* as F_GETFL gives them */
	int64_t offset;
};

struct desk {
	struct opened files[OPENED_MAX];
	int16_t table[DESCRIPTORS_MAX]; /* descriptor to index in `files`; -1: closed */
	uint8_t close_on_exec[DESCRIPTORS_MAX / 8];
	int16_t directory; /* index of the working directory; -1: not asked for yet */
	uint32_t umask;
	uint64_t elapsed_ns; /* on the recorded clock, since the snapshot */
	char name[16];       /* PR_SET_NAME */
	char cwd[4096];
};

/* Who the program was. */
struct identity {
	int pid, tid, ppid, pgrp, sid;
	uint32_t uid, euid, gid, egid;
	int64_t realtime_ns, monotonic_ns, cpu_ns; /* at the snapshot */
	char uname[6][65]; /* struct new_utsname */
	char cwd[4096];
	char executable[4096];
	char name[16];
	uint8_t descriptors[DESCRIPTORS_MAX / 8]; /* known to have been open: their numbers are not given out */
};

void desk_init(struct desk *desk, const struct identity *record);
/* Closes everything that `desk` holds and `kept` (or NULL) does not. */
void desk_close(struct desk *desk, const struct desk *kept);
struct opened *desk_find(struct desk *desk, int64_t descriptor); /* or NULL */
/* A free slot with one reference, or NULL. */
struct opened *desk_open(struct desk *desk, int fd, int kind, uint32_t flags);
/* The lowest free descriptor from `lowest` on gets `file`; -EMFILE. */
int desk_install(struct desk *desk, const struct identity *record, struct opened *file, int64_t lowest,
		 bool close_on_exec);
/* That very descriptor, whatever it was before. */
void desk_replace(struct desk *desk, const struct desk *saved, int descriptor, struct opened *file,
		  bool close_on_exec);
/* Of a descriptor that desk_find knows; a number that can be none does nothing. */
bool desk_closes_on_exec(const struct desk *desk, int descriptor);
void desk_close_on_exec(struct desk *desk, int descriptor, bool on);
int desk_drop(struct desk *desk, const struct desk *saved, int64_t descriptor); /* -EBADF */
void desk_release(struct desk *desk, const struct desk *saved, struct opened *file);

#endif
