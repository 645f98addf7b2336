/* vessel.h - the process that is rebuilt from a snapshot and runs the program's code. */
#ifndef GDB_UFFD_VESSEL_H
#define GDB_UFFD_VESSEL_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "error.h"
#include "pager.h"

/* One entry of the gate's table: number, six arguments, result; run by a loop in the vessel. */
struct gate_call {
	int64_t nr;
	uint64_t args[6];
	int64_t result;
};

#define REFUSED_MAX 64

struct refused {
	int64_t nr;
	uint64_t args[6];
	int error; /* the errno that the program saw */
};

enum run_end {
	RUN_STOPPED = 0, /* a signal stop: `signal`, `siginfo` */
	RUN_CONTROL = 1, /* the control descriptor is readable; the vessel runs on */
	RUN_OUTPUT = 2,  /* the output pipe is readable; the vessel runs on */
	RUN_EXITING = 3, /* about to exit with `status`; stands before that system call */
	RUN_GONE = 4,    /* the process is gone: `status` as waitpid(2) has it */
	RUN_KILLING = 6, /* about to send itself SIGKILL; stands before that system call */
	RUN_WATCH = 16, /* the watched object was written: `low` to `high`, by `call` or at `pc` */
	RUN_WAITING = 5, /* about to wait for ever on the futex at `address`; stands before the call */
};

struct run {
	int end;
	int signal;
	int status;
	bool interrupted; /* the SIGSTOP of vessel_interrupt */
	bool stepped; /* a single step (or range step) completed */
	uint64_t pc;
	uint64_t address; /* of the futex; of the watched write */
	uint64_t low, high; /* what it changed, half-open; 0, 0: it wrote what was there */
	int64_t call; /* the system call that wrote it; -1: an instruction */
	uint8_t siginfo[128];
};

enum resume { RESUME_CONTINUE = 0, RESUME_STEP = 1, RESUME_RANGE = 2 };

struct vessel {
	pid_t pid;
	int pidfd;
	int output_fd; /* read end of the vessel's stdout and stderr */
	int how;       /* as uffd_probe */
	uint64_t gate, gate_bytes;
	struct pager *pager;
	struct error error;
	int cpu; /* the CPU that vessel, pager and tracer share while it runs */
	cpu_set_t allowed; /* the tracer's own CPUs, between runs */

	pid_t recorded_pid, recorded_tid; /* who it impersonates */
	uint64_t brk_start, brk_now;      /* the recorded heap; 0: none known */

	struct refused refused[REFUSED_MAX];
	uint32_t refused_count; /* may exceed REFUSED_MAX */

	int mode; /* enum resume of the resume under way */
	uint64_t range_low, range_high;
	bool kernel_changed;   /* a call of this transaction left something in the kernel */
	bool stop_sent;        /* our SIGSTOP is on its way */
	bool stop_stale;       /* ... but asked for in an earlier run, which ended otherwise */
	bool hardware;         /* debug registers are in use: a range step looks at DR6 */
	bool at_exit;          /* stands after a system call that the policy made for it */
};

/* No process yet; vessel_destroy may follow at any time. */
void vessel_init(struct vessel *vessel);
/* Spawns the vessel and maps pager->regions in it.  On failure nothing is left. */
int vessel_create(struct vessel *vessel, struct pager *pager);
void vessel_destroy(struct vessel *vessel);

int vessel_get_registers(struct vessel *vessel, struct user_regs_struct *regs);
int vessel_set_registers(struct vessel *vessel, const struct user_regs_struct *regs);
/* NT_X86_XSTATE; the buffer must have exactly this machine's size.  Returns the size. */
int vessel_get_xstate(struct vessel *vessel, void *buffer, size_t room);
int vessel_set_xstate(struct vessel *vessel, const void *buffer, size_t len);
int vessel_set_sigmask(struct vessel *vessel, uint64_t mask);
int vessel_get_sigmask(struct vessel *vessel, uint64_t *mask);
/* Whether the process is still there (it can be killed from outside at any time). */
bool vessel_is_alive(struct vessel *vessel);
int vessel_set_siginfo(struct vessel *vessel, const uint8_t *siginfo);
int vessel_set_debug_register(struct vessel *vessel, int number, uint64_t value);
int vessel_get_debug_register(struct vessel *vessel, int number, uint64_t *value);

/* Lets it run; then vessel_wait until it ends with something else than CONTROL or OUTPUT. */
int vessel_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high);
int vessel_wait(struct vessel *vessel, int control_fd, struct run *run);
/* Asks for a stop: SIGSTOP, reported once as RUN_STOPPED with that signal. */
int vessel_interrupt(struct vessel *vessel);

/* Whether the signal's disposition in the vessel ends the process (no handler, not ignored). */
bool vessel_signal_is_fatal(struct vessel *vessel, int signal);

/* Inside the native part. */
void vessel_share_cpu(struct vessel *vessel);
void vessel_leave_cpu(struct vessel *vessel);
int vessel_batch(struct vessel *vessel, struct gate_call *calls, size_t count);
int vessel_wait_stop(struct vessel *vessel, int *status);
/* Decides about the system call the vessel stands before.  1: it goes no further, `run` says why. */
int policy_system_call(struct vessel *vessel, struct run *run);
/* The call is not made; the program sees `result`. */
int policy_skip(struct vessel *vessel, struct user_regs_struct *regs, int64_t result);
/* The program sees `error`; the report names the call. */
int policy_refuse(struct vessel *vessel, struct user_regs_struct *regs, int error);
struct sock_fprog;
size_t policy_filter(struct sock_fprog *program, size_t room);

#endif
