/* fd_table.h - what the answered system calls change: the program's descriptors, its working directory,
 * its clock.  All of it lies in the server; an undone call brings back what was. */
#ifndef GDB_UFFD_FD_TABLE_H
#define GDB_UFFD_FD_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

#define OPENED_MAX 256      /* open files at a time */
#define DESCRIPTORS_MAX 1024 /* PYTHON; RLIMIT_NOFILE as it is answered */

#define TIMERS_MAX 35 /* the three of setitimer(2), then timer_create(2)'s and timerfd_create(2)'s */

enum timer_kind { TIMER_NONE = 0, TIMER_INTERVAL, TIMER_POSIX, TIMER_DESCRIPTOR };

struct timer {
	uint8_t kind;
	bool cpu;       /* counts what the program runs, not what it sleeps */
	bool silent;    /* SIGEV_NONE */
	int clock;
	int signal;
	uint64_t value; /* sigev_value */
	uint64_t due;   /* kernel_state.elapsed_ns or .ran_ns; 0: not armed */
	uint64_t every; /* 0: once */
	uint64_t ticks; /* a descriptor's, not read yet */
	uint32_t overrun;
};

PYTHON enum opened_kind {
	OPENED_NOTHING = 0, /* a free slot */
	OPENED_FILE,        /* a regular file */
	OPENED_DIRECTORY,
	OPENED_PATH,   /* O_PATH */
	OPENED_INPUT,  /* the recorded stdin: empty */
	OPENED_OUTPUT, /* the recorded stdout, stderr */
	OPENED_SOCKET, /* made by socket(2), and nothing comes of it */
	/* Between the program and itself (channel.h): */
	OPENED_PIPE,
	OPENED_PAIR, /* socketpair(2) */
	OPENED_EVENT,
	OPENED_SIGNALS,
	OPENED_EPOLL,
	OPENED_TIMER,
};

/* Bytes that several kernel states may hold; who changes them takes a copy. */
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

PYTHON struct kernel_state {
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
PYTHON struct identity {
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

void fd_table_init(struct kernel_state *state, const struct identity *identity);
/* `to`, which holds nothing, becomes as `from`. */
void fd_table_share(struct kernel_state *to, const struct kernel_state *from);
/* Closes everything that `state` holds and `kept` (or NULL) does not. */
void fd_table_close(struct kernel_state *state, const struct kernel_state *kept);
struct opened *fd_table_find(struct kernel_state *state, int64_t descriptor); /* or NULL */
/* A free slot with one reference, or NULL. */
struct opened *fd_table_open(struct kernel_state *state, int fd, int kind, uint32_t flags);
/* The lowest free descriptor from `lowest` on gets `file`; -EMFILE. */
int fd_table_install(struct kernel_state *state, const struct identity *identity, struct opened *file,
		     int64_t lowest, bool close_on_exec);
/* That very descriptor, whatever it was before. */
void fd_table_replace(struct kernel_state *state, const struct kernel_state *saved, int descriptor,
		      struct opened *file, bool close_on_exec);
/* Of a descriptor that fd_table_find knows; a number that can be none does nothing. */
bool fd_table_closes_on_exec(const struct kernel_state *state, int descriptor);
void fd_table_close_on_exec(struct kernel_state *state, int descriptor, bool on);
/* The program is told that there is no such descriptor: it stays so until it gets one. */
void fd_table_tell_missing(struct kernel_state *state, int64_t descriptor);
/* A recorded descriptor is taken for one that nothing comes from; whether that was so, and whether a read of it
 * waits. */
void fd_table_take_for_silent(struct kernel_state *state, int descriptor);
bool fd_table_is_silent(const struct kernel_state *state, int descriptor);
bool fd_table_silent_waits(const struct kernel_state *state, int descriptor);
void fd_table_silent_wait(struct kernel_state *state, int descriptor, bool on);
/* Whether a recorded descriptor may have that number. */
bool fd_table_may_be(const struct kernel_state *state, const struct identity *identity, int64_t descriptor);
int fd_table_drop(struct kernel_state *state, const struct kernel_state *saved, int64_t descriptor); /* -EBADF */
/* What waits to be read: more behind it, or a part taken away.  -ENOMEM. */
int fd_table_hold(struct opened *file, const void *bytes, size_t len);
int fd_table_take(struct opened *file, size_t at, size_t len);
/* Bytes of its own, to be changed in place; NULL: no memory. */
uint8_t *fd_table_held(struct opened *file);
void fd_table_release(struct kernel_state *state, const struct kernel_state *saved, struct opened *file);

#endif
