/* kill.h - kill(2), tgkill(2), rt_sigqueueinfo(2) and their kin. */
#ifndef GDB_UFFD_KILL_H
#define GDB_UFFD_KILL_H

struct registers;
struct run;
struct vessel;

/* At its ptrace event.  1: it goes no further, `run` says why; 0: let it go. */
int kill_signal(struct vessel *vessel, struct registers *regs, struct run *run);

#endif
