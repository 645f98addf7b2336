/* task.h - the vessel as a traced task: its registers, its signals, its stops. */
#ifndef GDB_UFFD_TASK_H
#define GDB_UFFD_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

struct debug_slot;
struct registers;
struct vessel;

PYTHON int task_get_registers(struct vessel *vessel, struct registers *regs);
PYTHON int task_set_registers(struct vessel *vessel, const struct registers *regs);
/* The register set of a note's type, NT_...; returns its size, which a set must have exactly. */
PYTHON int task_get_regset(struct vessel *vessel, uint64_t kind, void *buffer, size_t room);
PYTHON int task_set_regset(struct vessel *vessel, uint64_t kind, const void *buffer, size_t len);
PYTHON int task_set_sigmask(struct vessel *vessel, uint64_t mask);
PYTHON int task_get_sigmask(struct vessel *vessel, uint64_t *mask);
/* Whether the process is still there (it can be killed from outside at any time). */
PYTHON bool task_is_alive(struct vessel *vessel);
/* Behind a request that failed by ESRCH: the process is ending, but cannot be waited for yet (ptrace(2), "Death
 * under ptrace").  Returns when it can be, after a second at most. */
PYTHON void task_await_death(struct vessel *vessel);
PYTHON int task_set_siginfo(struct vessel *vessel, const uint8_t *siginfo);
/* As arch_set_debug and arch_debug_hits. */
PYTHON int task_set_debug(struct vessel *vessel, const struct debug_slot *slots, size_t count);
PYTHON int task_debug_hits(struct vessel *vessel);
/* Whether the signal's disposition in the vessel ends the process (no handler, not ignored). */
PYTHON bool task_signal_is_fatal(struct vessel *vessel, int signal);
/* Asks for a stop: SIGSTOP, reported once as RUN_STOPPED with that signal. */
PYTHON int task_interrupt(struct vessel *vessel);
/* Until it stops: its status as waitpid(2) has it.  -ESRCH: it is gone. */
int task_wait_stop(struct vessel *vessel, int *status);
/* Vessel, pager and tracer on one CPU; the tracer on its own ones again. */
void task_share_cpu(struct vessel *vessel);
PYTHON void task_leave_cpu(struct vessel *vessel);

#endif
