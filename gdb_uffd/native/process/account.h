/* account.h - what a transaction's report tells of system calls, and the way back of the kernel state. */
#ifndef GDB_UFFD_ACCOUNT_H
#define GDB_UFFD_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

struct kernel_state;
struct system_call;
struct vessel;

/* Between a transaction's beginning and its end; `keep`: what it did to its descriptors and clock. */
PYTHON void account_begin(struct vessel *vessel);
PYTHON void account_end(struct vessel *vessel, bool keep);
/* Descriptors and clock as in the recording. */
PYTHON void account_forget(struct vessel *vessel);
/* Before the end of a transaction: how the kernel state was before it, to be gone back to by another vessel. */
PYTHON void account_note_rerun(struct vessel *vessel);
PYTHON void account_copy_rerun(struct vessel *vessel, const struct vessel *other);
/* ... as it is now. */
PYTHON void account_copy(struct vessel *vessel, const struct vessel *other);
const struct kernel_state *account_saved(const struct vessel *vessel); /* NULL: no transaction is open */

void account_note_granted(struct vessel *vessel, uint64_t nr);
void account_note_opened(struct vessel *vessel, const struct system_call *call, uint64_t path);
/* Contents of the file (directory, link) behind our descriptor `fd` came into the program's memory. */
void account_note_read(struct vessel *vessel, int fd);
/* What the program wrote to its stdout and stderr. */
int account_output(struct vessel *vessel, const void *bytes, uint64_t len);
/* Moves at most `room` bytes of what was printed; returns how many. */
PYTHON size_t account_take_output(struct vessel *vessel, uint8_t *to, size_t room);

#endif
