/* vessel.h - the process that is rebuilt from a snapshot and runs the program's code. */
#ifndef GDB_UFFD_VESSEL_H
#define GDB_UFFD_VESSEL_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "arch.h"
#include "catch.h"
#include "desk.h"
#include "error.h"
#include "pager.h"
#include "policy.h"
#include "signals.h"

/* One entry of the gate's table: number, six arguments, result; run by a loop in the vessel. */
struct gate_call {
	int64_t nr;
	uint64_t args[6];
	int64_t result;
};

#define PASSED_MAX 16

/* A lock that the program went through although somebody holds it (`threads ignore-locks`). */
struct passed {
	uint64_t address;
	uint32_t value; /* the futex */
	int32_t owner;  /* TID of the recorded thread that holds it; 0: not known */
	uint32_t times;
};

#define OPENED_NAMES_MAX 32

struct opened_name {
	uint16_t nr, len;
	bool cut;
	uint8_t bytes[REFUSED_BYTES];
};

#define NAMES_MAX 4096

/* Paths, each once, a NUL behind each. */
struct names {
	char *text;
	size_t len, room;
	uint32_t count, more; /* more: beyond NAMES_MAX, or for want of memory */
};

#define SIGNALS 64
#define ADOPTED_MAX 32

/* A recorded descriptor of which is only known what the program did with it. */
struct adopted {
	int number, kind; /* enum opened_kind: what it was taken for */
};

/* The system call that the kernel makes in place of the program's; what `finish` returns, the program
 * sees.  No finish: none. */
struct redo {
	struct system_call call;
	int64_t (*finish)(struct vessel *vessel, const struct system_call *call, int64_t result);
};

enum run_end {
	RUN_STOPPED = 0, /* a signal stop: `signal`, `siginfo` */
	RUN_CONTROL = 1, /* the control descriptor is readable; the vessel runs on */
	RUN_OUTPUT = 2,  /* the output pipe is readable; the vessel runs on */
	RUN_EXITING = 3, /* about to exit with `status`; stands before that system call */
	RUN_GONE = 4,    /* the process is gone: `status` as waitpid(2) has it */
	RUN_KILLING = 6, /* about to send itself SIGKILL or SIGSTOP (`signal`); stands before that call */
	RUN_WAITING = 5, /* about to wait for ever in `call` (of a futex: `address`); stands before it */
	RUN_TIMEOUT = 7, /* vessel->deadline_ns has passed */
	RUN_CALL = 9,    /* at the `entry` to the system call `call`, before its instruction; else behind it */
	RUN_MEMORY = 8,  /* about to touch one more page than pager->limit allows */
	RUN_FAILED = 10, /* a page could not be had for want of something of ours: `status` is the errno */
	RUN_WATCH = 16, /* the watched object was written: `low` to `high`, by `call` or at `pc` */
};

struct run {
	int end;
	int signal;
	int status;
	bool interrupted; /* the SIGSTOP of vessel_interrupt */
	bool entry;
	bool thread;  /* of RUN_EXITING: of this thread alone */
	bool stepped; /* a single step (or range step) completed */
	uint64_t pc;
	uint64_t address; /* of the futex; of the watched write */
	uint64_t low, high; /* what it changed, half-open; 0, 0: it wrote what was there */
	int64_t call; /* the system call that wrote it (-1: an instruction), or that would wait */
	uint8_t siginfo[128];
};

enum resume { RESUME_CONTINUE = 0, RESUME_STEP = 1, RESUME_RANGE = 2 };

struct vessel {
	pid_t pid;
	int pidfd;
	int output_fd; /* read end of the vessel's stdout and stderr; -1: the server answers write(2) */
	int listener;  /* seccomp user notifications; -1: ptrace events instead */
	int how;       /* enum uffd_way */
	uint64_t gate, gate_bytes;
	uint64_t vdso, vdso_end; /* the one that it was started with, where it was moved to; 0: gone */
	struct pager *pager;
	struct error error;
	int cpu; /* the CPU that vessel, pager and tracer share while it runs */
	cpu_set_t allowed; /* the tracer's own CPUs, between runs */
	bool shares_cpu;   /* the tracer runs on `cpu` alone */
	bool keeps_cpu;    /* ... and goes on so after a stop: it may resume at once; vessel_leave_cpu ends it */

	struct policy policy; /* its rules are those of the filter: set them before vessel_create */
	struct identity record; /* who it impersonates */
	struct desk desk, saved; /* `saved`: as at the transaction's beginning */
	struct desk past; /* as before the last run, with descriptors of its own */
	bool in_transaction;
	uint32_t turn; /* of the transactions: which one this is */
	uint64_t brk_start, brk_now; /* the recorded heap; 0: none known */

	/* What the transaction's report tells. */
	struct refused refused[REFUSED_MAX];
	uint32_t refused_count, refused_more; /* more: beyond REFUSED_MAX different ones */
	uint32_t granted[RULES];              /* how often each call was granted, but the untouched ones */
	uint32_t withdrawn[RULES];            /* ... and refused, when its arguments were looked at */
	uint16_t granted_order[RULES];        /* numbers, in the order of their first time */
	uint32_t granted_count;
	struct opened_name opened[OPENED_NAMES_MAX];
	uint32_t opened_count; /* may exceed OPENED_NAMES_MAX */
	struct names read; /* files whose contents came into its memory, whatever the kernel did alone left out */
	struct adopted adopted[ADOPTED_MAX];
	uint32_t adopted_count;
	int epoll_depth; /* epolls that ask each other */
	const int32_t *tids; /* of the recorded threads */
	uint32_t tid_count;
	struct passed passed[PASSED_MAX];
	uint32_t passed_count;

	uint8_t *out; /* what it printed, until vessel_take_output */
	size_t out_len, out_room;
	uint64_t out_since_ns; /* CLOCK_MONOTONIC; 0: nothing waits */
	uint64_t ran_from_ns;  /* CLOCK_MONOTONIC: its running counts from here on; 0: it does not run */
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC; 0: none */
	uint64_t felt_calls;   /* so many that may have changed what a later one is told */
	int64_t wait_call;     /* the call that would wait for ever, and its futex */
	uint64_t wait_address;
	int64_t cut_call; /* a wait without an end that timers cut short again and again */
	uint64_t cut_address;
	int cuts;
	uint64_t waited_ns; /* of this transaction: what passed in waits and sleeps */
	int waits;
	uint64_t wait_pc, wait_first; /* behind its instruction; its first argument */
	timer_t timer; /* of notify_burst */
	bool has_timer;
	bool waiting; /* ... was notified: a SIGSTOP is on its way */
	struct redo redo;
	uint64_t held_signals; /* came at a bad time, bit (n - 1) for signal n */
	siginfo_t held[SIGNALS];
	siginfo_t sent[SIGNALS]; /* by signals_send, until it arrives; si_signo 0: none */
	uint64_t alternate_stack, alternate_size; /* sigaltstack(2) */

	/* Stands in for a file of /proc/self: a descriptor, or -1. */
	int (*own_file)(void *context, const char *name);
	void *own_context;

	int mode; /* enum resume of the resume under way */
	uint64_t range_low, range_high;
	bool kernel_changed;   /* a call of this transaction left something in the kernel */
	bool no_listener;      /* the kernel gave none: ptrace events instead */
	bool other_way;        /* the last attempt failed at something that can be done otherwise */
	bool timed_out;        /* ... because of the deadline */
	bool stop_sent;        /* our SIGSTOP is on its way */
	bool stop_stale;       /* ... but asked for in an earlier run, which ended otherwise */
	uint64_t stop_asked_ns; /* when the stop was asked for last; 0: now */
	struct debug_slot slots[DEBUG_SLOTS]; /* watchpoints in use: a range step looks for hits */
	size_t slot_count;
	struct catching catching;
	bool at_exit;          /* stands after a system call that the policy made for it */
};

/* No process yet; vessel_destroy may follow at any time. */
void vessel_init(struct vessel *vessel);
/* Spawns the vessel and maps pager->regions in it.  On failure nothing is left. */
int vessel_create(struct vessel *vessel, struct pager *pager);
void vessel_destroy(struct vessel *vessel);
/* Frees what is kept from one process to the next; no process lives. */
void vessel_deinit(struct vessel *vessel);

int vessel_get_registers(struct vessel *vessel, struct registers *regs);
int vessel_set_registers(struct vessel *vessel, const struct registers *regs);
/* The register set of a note's type, NT_...; returns its size, which a set must have exactly. */
int vessel_get_regset(struct vessel *vessel, uint64_t kind, void *buffer, size_t room);
int vessel_set_regset(struct vessel *vessel, uint64_t kind, const void *buffer, size_t len);
int vessel_set_sigmask(struct vessel *vessel, uint64_t mask);
int vessel_get_sigmask(struct vessel *vessel, uint64_t *mask);
/* Whether the process is still there (it can be killed from outside at any time). */
bool vessel_is_alive(struct vessel *vessel);
int vessel_set_siginfo(struct vessel *vessel, const uint8_t *siginfo);
/* As arch_set_debug and arch_debug_hits. */
int vessel_set_debug(struct vessel *vessel, const struct debug_slot *slots, size_t count);
int vessel_debug_hits(struct vessel *vessel);

/* Lets it run; then vessel_wait until it ends with something else than CONTROL or OUTPUT. */
int vessel_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high);
int vessel_wait(struct vessel *vessel, int control_fd, struct run *run);
/* Makes the instruction beneath the planted breakpoint at `address`, before which it stands. */
int vessel_step_over(struct vessel *vessel, uint64_t address);
/* Asks for a stop: SIGSTOP, reported once as RUN_STOPPED with that signal. */
int vessel_interrupt(struct vessel *vessel);

/* Between a transaction's beginning and its end; `keep`: what it did to its descriptors and clock. */
void vessel_begin(struct vessel *vessel);
void vessel_end(struct vessel *vessel, bool keep);
/* Descriptors and clock as in the record. */
void vessel_forget_desk(struct vessel *vessel);
/* Before the end of a transaction: how the desk was before it, to be gone back to by another vessel. */
void vessel_note_past(struct vessel *vessel);
void vessel_copy_past(struct vessel *vessel, const struct vessel *other);
/* ... as it is now. */
void vessel_copy_desk(struct vessel *vessel, const struct vessel *other);
/* Moves at most `room` bytes of what was printed; returns how many. */
size_t vessel_take_output(struct vessel *vessel, uint8_t *to, size_t room);

/* Whether the signal's disposition in the vessel ends the process (no handler, not ignored). */
bool vessel_signal_is_fatal(struct vessel *vessel, int signal);

void vessel_leave_cpu(struct vessel *vessel);

/* Inside the native part. */
void vessel_share_cpu(struct vessel *vessel);
int vessel_batch(struct vessel *vessel, struct gate_call *calls, size_t count);
int vessel_wait_stop(struct vessel *vessel, int *status);
int vessel_leave_event(struct vessel *vessel, struct run *run); /* 1, or an error */
/* What a stop means.  1: `run` is filled; 0: it runs again; negative: an error. */
int vessel_digest(struct vessel *vessel, int status, struct run *run);
const struct desk *vessel_saved_desk(const struct vessel *vessel); /* NULL: no transaction is open */
/* Among the recorded ones. */
static inline bool vessel_has_thread(const struct vessel *vessel, int32_t tid)
{
	for (uint32_t i = 0; i < vessel->tid_count; i++)
		if (vessel->tids[i] == tid)
			return true;
	return false;
}
void vessel_note_granted(struct vessel *vessel, uint64_t nr);
void vessel_note_opened(struct vessel *vessel, const struct system_call *call, uint64_t path);
/* Contents of the file (directory, link) behind our descriptor `fd` came into the program's memory. */
void account_note_read(struct vessel *vessel, int fd);

#endif
