/* waiting.c - a call that waits.  Nobody else runs who could end it: without a time limit it is told instead of
 * suffered, with one it is over as soon as the recorded clock has been moved on. */
#define _GNU_SOURCE
#include "syscalls/waiting.h"

#include <errno.h>
#include <sys/syscall.h>

#include "process/clock.h"
#include "process/timers.h"
#include "syscalls/answer.h"

#define ERESTARTSYS 512 /* the kernel's own (include/linux/errno.h): no program sees it */
#define CUTS_MAX 1000 /* how often timers cut one wait short before it counts as one without an end */
#define WAITS_MAX 1000
#define WAITED_MAX (3600ll * 1000000000) /* an hour */

int64_t waiting_interrupted(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	bool same = vessel->cut_call == (int64_t)call->nr && vessel->cut_address == address;

	vessel->cut_call = (int64_t)call->nr;
	vessel->cut_address = address;
	vessel->cuts = same ? vessel->cuts + 1 : 0;
	if (vessel->cuts >= CUTS_MAX) {
		vessel->cuts = 0;
		return waiting_told(vessel, call, address);
	}
	/* The kernel makes it EINTR, or goes back to the call behind a handler with SA_RESTART. */
	return vessel->listener >= 0 ? -ERESTARTSYS : -EINTR;
}

int64_t waiting_told(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	vessel->wait_call = (int64_t)call->nr;
	vessel->wait_address = address;
	return ANSWER_WAITS;
}

int64_t waiting_for_ever(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	int64_t ns = FOR_EVER;

	if (timers_pass(vessel, &ns, false) == PASSED_INTERRUPTED)
		return waiting_interrupted(vessel, call, address);
	return waiting_told(vessel, call, address);
}

int64_t waiting_over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result)
{
	vessel->waited_ns += (uint64_t)(ns < WAITED_MAX ? ns : WAITED_MAX);
	if (++vessel->waits < WAITS_MAX || vessel->waited_ns < (uint64_t)WAITED_MAX)
		return result;
	vessel->waits = 0;
	vessel->waited_ns = 0;
	return waiting_told(vessel, call, call->nr == SYS_futex ? call->args[0] : 0);
}

bool waiting_nothing_ready(struct vessel *vessel, const struct system_call *call, int64_t *ns,
			   uint64_t descriptors, int64_t *result)
{
	if (vessel->policy.real_clock && *ns && *ns != FOR_EVER && !descriptors) {
		*result = ANSWER_LET;
		return true;
	}
	int64_t wanted = *ns;
	switch (timers_pass(vessel, ns, true)) {
	case PASSED_WHOLE:
		*result = waiting_over(vessel, call, wanted, 0);
		return true;
	case PASSED_TICKED:
		return false;
	case PASSED_NEVER:
		*result = waiting_told(vessel, call, call->args[0]);
		return true;
	default:
		*result = waiting_interrupted(vessel, call, call->args[0]);
		if (*result != ANSWER_WAITS) /* never made again by the kernel (signal(7)) */
			*result = -EINTR;
		return true;
	}
}
