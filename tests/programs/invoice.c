// An invoice: lines are added, a discount is given, and the sum comes out wrong.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
	char what[12];
	int cents;
	int count;
};

struct invoice {
	struct line lines[8];
	int used;
	int discount;			// in percent
	long total;
};

static struct invoice invoice;

static void retotal(struct invoice *v)
{
	v->total = 0;
	for (int i = 0; i < v->used; i++)
		v->total += v->lines[i].cents * v->lines[i].count;
	v->total -= v->total * v->discount / 100;
}

static void add(struct invoice *v, const char *what, int cents, int count)
{
	struct line *l = &v->lines[v->used++];

	strcpy(l->what, what);
	l->cents = cents;
	l->count = count;
	retotal(v);
}

static void discount(struct invoice *v, int percent)
{
	v->discount += percent;
	retotal(v);
}

static void rename_line(struct invoice *v, int i, const char *what)
{
	strcpy(v->lines[i].what, what);
}

int main(void)
{
	struct invoice *v = &invoice;

	add(v, "paper", 450, 10);
	add(v, "ink", 1999, 2);
	add(v, "stapler", 1250, 1);
	discount(v, 10);
	rename_line(v, 1, "ink, black");
	rename_line(v, 2, "stapler, large");
	add(v, "envelopes", 300, 4);
	printf("%ld.%02ld\n", v->total / 100, v->total % 100);
	assert(v->total == 9688);
	return 0;
}
