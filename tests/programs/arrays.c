/* What a pointer leads to: one object, an object that begins with another, or several in a row. */
#include <stdlib.h>
#include <string.h>

struct kind {
	const char *name;
};

struct object {
	long uses;
	struct kind *kind;
};

struct text {
	struct object base;
	long length;
	char characters[200];
};

struct item {
	const char *name;
	long price;
};

struct shop {
	struct item *items;
	int count, room;
	struct object *owner;
};

struct span {
	struct item *begin, *end;
	long id;
};

struct shelf {
	struct item *top;
	long uses, refcount;
};

struct pair {
	int left, right;
};

struct header {
	long size[5];
};

struct message {
	struct header header;
	char body[130];
};

struct deeds {
	int (*open)(int), (*close)(int);
};

struct device {
	struct deeds deeds;
	long state[6];
};

struct kind texts = {"text"};
struct object *value, *others[4];
struct shop shop;
struct span span;
struct shelf shelf;
struct pair *pairs;
struct header *head;
struct item *alone;
struct deeds *deeds;

static struct object *make_text(void)
{
	struct text *made = calloc(1, sizeof(*made));

	made->base.uses = 1;
	made->base.kind = &texts;
	made->length = 3;
	return &made->base;
}

int set_text(int n)
{
	((struct text *)value)->characters[64] = (char)n;
	((struct text *)value)->length = n;
	((struct text *)others[2])->characters[72] = (char)n;
	((struct text *)shop.owner)->characters[80] = (char)n;
	return n;
}

int use(int n)
{
	value->uses = others[2]->uses = n;
	return n;
}

int set_items(int n)
{
	shop.items[2].price = n;
	shop.items[5].name = texts.name; /* room for it */
	span.begin[1].price = n;
	return n;
}

int set_pairs(int n)
{
	pairs[3].right = n;
	return n;
}

int set_body(int n)
{
	((struct message *)head)->body[100] = (char)n;
	return n;
}

int set_alone(int n)
{
	alone->price = n;
	alone[3].price = n; /* nothing says that there are four */
	return n;
}

int set_shelf(int n)
{
	shelf.top->price = n;
	shelf.top[1].price = n; /* the numbers beside it are of something else */
	return n;
}

int set_device(int n)
{
	deeds->close = set_alone;
	((struct device *)deeds)->state[3] = n;
	return n;
}

int main(void)
{
	value = make_text();
	others[2] = make_text();
	shop.owner = make_text();
	shop.items = calloc(6, sizeof(*shop.items));
	shop.count = 3;
	shop.room = 6;
	span.begin = calloc(4, sizeof(*span.begin));
	span.end = span.begin + 2;
	shelf.top = calloc(2, sizeof(*shelf.top));
	shelf.uses = shelf.refcount = 2;
	pairs = calloc(5, sizeof(*pairs));
	head = calloc(1, sizeof(struct message));
	alone = calloc(4, sizeof(*alone));
	deeds = calloc(1, sizeof(struct device));
	abort();
}
