/* vessel.h - the process that is rebuilt from a snapshot and runs the program's code. */
#ifndef GDB_UFFD_VESSEL_H
#define GDB_UFFD_VESSEL_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "kernel/arch.h"
#include "kernel/fail.h"
#include "kernel/python.h"
#include "pager/pager.h"
#include "process/catch.h"
#include "process/signals.h"
#include "table/fd_table.h"
#include "table/rules.h"

/* One entry of the restorer's table: number, six arguments, result; run by a loop in the vessel. */
struct restorer_call {
	int64_t nr;
	uint64_t args[6];
	int64_t result;
};

#define PASSED_MAX 16

/* A lock that the program went through although somebody holds it (`threads ignore-locks`). */
PYTHON struct passed {
	uint64_t address;
	uint32_t value; /* the futex */
	int32_t owner;  /* TID of the recorded thread that holds it; 0: not known */
	uint32_t times;
};

#define OPENED_NAMES_MAX 32 /* PYTHON */

PYTHON struct opened_name {
	uint16_t nr, len;
	bool cut;
	uint8_t bytes[REFUSED_BYTES];
};

#define NAMES_MAX 4096

/* Paths, each once, a NUL behind each. */
PYTHON struct names {
	char *text;
	size_t len, room;
	uint32_t count, more; /* more: beyond NAMES_MAX, or for want of memory */
};

#define SIGNALS 64
#define ADOPTED_MAX 32

/* A recorded descriptor of which is only known what the program did with it. */
PYTHON struct adopted {
	int number, kind; /* enum opened_kind: what it was taken for */
};

/* The system call that the kernel makes in place of the program's; what `finish` returns, the program
 * sees.  No finish: none. */
struct redo {
	struct system_call call;
	int64_t (*finish)(struct vessel *vessel, const struct system_call *call, int64_t result);
};

PYTHON enum run_end {
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

PYTHON struct run {
	int end;
	int signal;
	int status;
	bool interrupted; /* the SIGSTOP of task_interrupt */
	bool entry;
	bool thread;  /* of RUN_EXITING: of this thread alone */
	bool stepped; /* a single step (or range step) completed */
	uint64_t pc;
	uint64_t address; /* of the futex; of the watched write */
	uint64_t low, high; /* what it changed, half-open; 0, 0: it wrote what was there */
	int64_t call; /* the system call that wrote it (-1: an instruction), or that would wait */
	uint8_t siginfo[128];
};

PYTHON enum resume { RESUME_CONTINUE = 0, RESUME_STEP = 1, RESUME_RANGE = 2 };

/* What the layers above decide about system calls. */
struct vessel_handlers {
	/* A call that no ptrace event is needed for.  1: `result` is what the program sees; 0: the kernel carries it
	 * out; 2: it would wait for ever, or needs more memory than it may have (pager->over_limit):
	 * vessel->wait_call; 3: vessel->redo is to be made instead. */
	int (*decide)(struct vessel *vessel, const struct system_call *call, int64_t *result);
	/* The vessel stands before a call at its ptrace event `data`.  1: it goes no further, `run` says why; 0: let
	 * it go. */
	int (*traced)(struct vessel *vessel, unsigned long data, struct run *run);
};

PYTHON struct vessel {
	const struct vessel_handlers *handlers;
	pid_t pid;
	int pidfd;
	int output_fd; /* read end of the vessel's stdout and stderr; -1: the server answers write(2) */
	int listener;  /* seccomp user notifications; -1: ptrace events instead */
	int how;       /* enum uffd_way */
	uint64_t restorer, restorer_bytes;
	uint64_t vdso, vdso_end; /* the one that it was started with, where it was moved to; 0: gone */
	struct pager *pager;
	struct error error;
	int cpu; /* the CPU that vessel, pager and tracer share while it runs */
	cpu_set_t allowed; /* the tracer's own CPUs, between runs */
	bool shares_cpu;   /* the tracer runs on `cpu` alone */
	bool keeps_cpu;    /* ... and goes on so after a stop: it may resume at once; task_leave_cpu ends it */

	struct policy policy; /* its rules are those of the filter: set them before vessel_create */
	struct identity identity; /* who it impersonates */
	struct kernel_state kernel_state, saved; /* `saved`: as at the transaction's beginning */
	struct kernel_state rerun; /* as before the last run, with descriptors of its own */
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

	uint8_t *out; /* what it printed, until account_take_output */
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
void vessel_init(struct vessel *vessel, const struct vessel_handlers *handlers);
/* Spawns the vessel and maps pager->regions in it.  On failure nothing is left. */
PYTHON int vessel_create(struct vessel *vessel, struct pager *pager);
PYTHON void vessel_destroy(struct vessel *vessel);
/* Frees what is kept from one process to the next; no process lives. */
PYTHON void vessel_deinit(struct vessel *vessel);

/* Among the recorded ones. */
static inline bool vessel_has_thread(const struct vessel *vessel, int32_t tid)
{
	for (uint32_t i = 0; i < vessel->tid_count; i++)
		if (vessel->tids[i] == tid)
			return true;
	return false;
}

#endif
