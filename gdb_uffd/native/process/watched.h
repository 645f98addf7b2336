/* watched.h - the running vessel, where writes to one object are told one by one (watch.h). */
#ifndef GDB_UFFD_WATCHED_H
#define GDB_UFFD_WATCHED_H

struct run;
struct vessel;

/* The pager has stopped it before an instruction that writes there: makes the instruction.  1: `run` is filled; 0: nothing to tell. */
int watched_step(struct vessel *vessel, struct run *run);
/* At a stop beside a system call, or a completed step.  1: `run` tells of a write; 0: nothing. */
int watched_look(struct vessel *vessel, struct run *run);
/* At a resume, and after each trap.  Where the program blocks SIGTRAP, the kernel unblocks it to
 * deliver the trap (force_sig_info_to_task), and the program could see that. */
int watched_note_mask(struct vessel *vessel);
int watched_mend_mask(struct vessel *vessel);
/* At the entry to a system call and at its exit. */
int watched_call(struct vessel *vessel, struct run *run);

#endif
