/* desk.h - what the answered system calls change: the program's descriptors, its working directory,
 * its clock.  All of it lies in the server; an undone call brings back what was. */
#ifndef GDB_UFFD_DESK_H
#define GDB_UFFD_DESK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "timers.h"

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
	/* Between the program and itself (answer_channel.c, answer_epoll.c): */
	OPENED_PIPE,
	OPENED_PAIR, /* socketpair(2) */
	OPENED_EVENT,
	OPENED_SIGNALS,
	OPENED_EPOLL,
	OPENED_TIMER,
};

/* Bytes that several desks may hold; who changes them takes a copy. */
struct held {
	uint32_t refs;
	size_t len;
	uint8_t bytes[];
};

/* An open file description. */
struct opened {
	int fd; /* the server's own descriptor, read-only; -1: none */
	uint8_t kind;
	bool semaphore; /* EFD_SEMAPHORE */
	bool recorded; /* stands for a recorded one: what epolls it was added to is not known */
	bool nowhere;  /* the other end of what was taken for a pipe: its number is not known */
	uint16_t refs; /* descriptors, and the working directory */
	int16_t peer;  /* the other end's index, plus one; 0: closed, or there is none */
	uint32_t flags; /* O_* as F_GETFL gives them */
	uint32_t told;  /* vessel->turn when it was noted as read */
	uint32_t turns; /* how often something came to be read here */
	int64_t offset; /* an eventfd's counter, a signalfd's set, the number of a timer */
	struct held *held; /* what waits to be read; an epoll's entries; NULL: nothing */
};

struct desk {
	struct opened files[OPENED_MAX];
	int16_t table[DESCRIPTORS_MAX]; /* descriptor to index in `files`; -1: closed */
	uint8_t close_on_exec[DESCRIPTORS_MAX / 8];
	uint8_t missing[DESCRIPTORS_MAX / 8]; /* the program was told that these are closed */
	uint8_t silent[DESCRIPTORS_MAX / 8];  /* ... that nothing comes from these, of which no more is known */
	uint8_t waits[DESCRIPTORS_MAX / 8];   /* of those: it made them blocking ones */
	int16_t directory; /* index of the working directory; -1: not asked for yet */
	uint32_t umask;
	uint64_t elapsed_ns; /* on the recorded clock, since the snapshot */
	uint64_t ran_ns;     /* of it, what the program ran while a timer was armed */
	struct timer timers[TIMERS_MAX];
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
	bool descriptors_told; /* ... and all the others are known to have been closed */
	uint8_t descriptor_kind[DESCRIPTORS_MAX]; /* enum opened_kind of those between the program and itself */
	int16_t descriptor_peer[DESCRIPTORS_MAX]; /* the other end's number; -1: not known */
};

void desk_init(struct desk *desk, const struct identity *record);
/* `to`, which holds nothing, becomes as `from`. */
void desk_share(struct desk *to, const struct desk *from);
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
/* The program is told that there is no such descriptor: it stays so until it gets one. */
void desk_tell_missing(struct desk *desk, int64_t descriptor);
/* A recorded descriptor is taken for one that nothing comes from; whether that was so, and whether a read of it
 * waits. */
void desk_take_for_silent(struct desk *desk, int descriptor);
bool desk_is_silent(const struct desk *desk, int descriptor);
bool desk_silent_waits(const struct desk *desk, int descriptor);
void desk_silent_wait(struct desk *desk, int descriptor, bool on);
/* Whether a recorded descriptor may have that number. */
bool desk_may_be(const struct desk *desk, const struct identity *record, int64_t descriptor);
int desk_drop(struct desk *desk, const struct desk *saved, int64_t descriptor); /* -EBADF */
/* What waits to be read: more behind it, or a part taken away.  -ENOMEM. */
int desk_hold(struct opened *file, const void *bytes, size_t len);
int desk_take(struct opened *file, size_t at, size_t len);
/* Bytes of its own, to be changed in place; NULL: no memory. */
uint8_t *desk_held(struct opened *file);
void desk_release(struct desk *desk, const struct desk *saved, struct opened *file);

#endif
