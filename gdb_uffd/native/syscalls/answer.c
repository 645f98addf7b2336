#include "syscalls/answer.h"

#include <errno.h>

#include "process/vessel.h"
#include "syscalls/refuse.h"

int64_t answer_call(struct vessel *vessel, const struct system_call *call)
{
	static int64_t (*const parts[])(struct vessel *, const struct system_call *) = {
		answer_time, answer_timer, answer_identity, answer_transfer, answer_wait, answer_silent, answer_descriptor,
		answer_path, answer_channel, answer_message, answer_epoll,
	};

	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		int64_t result = parts[i](vessel, call);
		if (result != ANSWER_NOT_MINE)
			return result;
	}
	return refuse_note(vessel, call, ENOSYS);
}
