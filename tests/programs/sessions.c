// A login server's table of sessions: found by number, and in a list by who spoke last.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct session {
	int id;
	int idle;			// minutes since it was heard of
	char *user;
	struct session *next;		// in the list, the youngest first
};

static struct session *recent;		// the list
static struct session *by_id[64];	// the index

static struct session *login(int id, const char *user)
{
	struct session *s = calloc(1, sizeof *s);

	s->id = id;
	s->user = strdup(user);
	s->next = recent;
	recent = s;
	by_id[id % 64] = s;
	return s;
}

static void logout(struct session *s)
{
	struct session **link = &recent;

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	by_id[s->id % 64] = NULL;
	free(s->user);
	free(s);
}

static int expire(int limit)
{
	int count = 0;

	for (struct session **link = &recent; *link;) {
		struct session *s = *link;

		if (s->idle <= limit) {
			link = &s->next;
			continue;
		}
		*link = s->next;
		free(s->user);
		free(s);
		count++;
	}
	return count;
}

static size_t greet(int id)
{
	struct session *s = by_id[id % 64];

	s->idle = 0;
	return printf("welcome back, %s\n", s->user) + strlen(s->user);
}

static void tick(int minutes)
{
	for (struct session *s = recent; s; s = s->next)
		s->idle += minutes;
}

int main(void)
{
	login(7, "ada");
	login(8, "grace");
	login(9, "barbara");
	tick(20);
	greet(9);
	tick(20);
	logout(login(10, "guest"));
	expire(30);
	login(11, "margaret");
	tick(1);
	greet(8);
	return 0;
}
