/* channel.h - descriptors between the program and itself. */
#ifndef GDB_UFFD_CHANNEL_H
#define GDB_UFFD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct opened;
struct system_call;
struct vessel;

/* The descriptor's file, also where it is the other end of what was taken for a pipe; or NULL. */
struct opened *channel_find(struct vessel *vessel, int number);
/* Two files that are each other's other end; false: too many are open. */
bool channel_open_two(struct vessel *vessel, int kind, uint32_t flags, struct opened *ends[2]);
/* A recorded descriptor that may be of that kind is taken for it, and the report tells; or NULL. */
struct opened *channel_adopt(struct vessel *vessel, int number, int kind);
/* Whether it may be a recorded descriptor: nothing comes from it, and the report tells. */
bool channel_is_silent(struct vessel *vessel, int number);
/* Whether the program was told so before. */
bool channel_was_silent(struct vessel *vessel, int number);
/* How a descriptor is ready (POLLIN ...); NULL: POLLNVAL. */
short channel_ready(struct vessel *vessel, struct opened *file);
/* Nothing is there, or no room, and nobody else could change that: -EAGAIN, or a wait. */
int64_t channel_later(struct vessel *vessel, const struct system_call *call, bool at_once);
/* The part that a read and a write of the bytes at `at` come to. */
int64_t channel_read(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		     uint64_t len);
int64_t channel_write(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		      uint64_t len);
/* A read of a descriptor that has no file: of one that nothing comes from.  ANSWER_NOT_MINE: it is none. */
int64_t channel_read_silent(struct vessel *vessel, const struct system_call *call);

/* What an epoll was told of one descriptor; its file holds them one behind the other. */
struct epoll_entry {
	int32_t number; /* the descriptor */
	uint32_t events, turns; /* `turns`: of the file, when it was last told of (EPOLLET) */
	uint32_t told;
	uint64_t data;
};

size_t channel_epoll_count(const struct opened *file);
/* What it has to tell of that one; EPOLLIN and its like have poll(2)'s values (<sys/epoll.h>). */
uint32_t channel_epoll_events(struct vessel *vessel, const struct epoll_entry *entry);

#endif
