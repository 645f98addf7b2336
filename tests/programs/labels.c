// Labels for parcels: a text is built for each, and freed when it is printed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parcel {
	int number;
	char *label;
	struct parcel *next;
};

static struct parcel *queue;
static int printed;

static char *make_label(const char *name, const char *town)
{
	// ", " and the 0
	char *text = malloc(strlen(name) + strlen(town) + 2);

	strcpy(text, name);
	strcat(text, ", ");
	strcat(text, town);
	return text;
}

static struct parcel *send(int number, const char *name, const char *town)
{
	struct parcel *p = malloc(sizeof *p);

	p->number = number;
	p->label = make_label(name, town);
	p->next = queue;
	queue = p;
	return p;
}

static void relabel(int number, const char *name, const char *town)
{
	for (struct parcel *p = queue; p; p = p->next)
		if (p->number == number) {
			free(p->label);
			p->label = make_label(name, town);
		}
}

static void print_all(void)
{
	while (queue) {
		struct parcel *p = queue;

		queue = p->next;
		puts(p->label);
		free(p->label);
		free(p);
		printed++;
	}
}

int main(void)
{
	send(1, "A. Lovelace", "London");
	send(2, "G. Hopper", "New York");
	send(3, "E. Noether", "Goettingen");
	send(4, "M. Curie", "Paris");
	relabel(1, "A. Lovelace", "Oxford");
	relabel(3, "E. Noether", "Braunschweig");
	relabel(4, "M. Curie", "Warsaw");
	print_all();
	return 0;
}
