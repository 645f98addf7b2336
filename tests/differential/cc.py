"""C programs from a seed, of what csmith leaves out: long double, __int128, strings, thread-locals,
statics of functions, unions and bit fields inside of arrays, structures by value, recursion, and a
heap of lists, tables and texts that grows, moves and shrinks."""

import random

SCALARS = (
    *("signed char", "short", "int", "long", "unsigned char", "unsigned short", "unsigned"),
    *("unsigned long", "float", "double", "long double", "__int128", "unsigned __int128"),
    *("_Bool", "enum shade", "char"),
)
WHOLE = tuple(s for s in SCALARS if s not in ("float", "double", "long double", "_Bool"))

HEAD = """\
#include <stdlib.h>
#include <string.h>
enum shade { DARK, MIDDLE = 7, LIGHT };
struct item { int key; double weight; char name[12]; struct item *next, *other; };
union word { unsigned whole; unsigned short half[2]; unsigned char part[4]; float real; };
"""

BODY = """\
static struct item *list; static struct item **table; static int slots, used;
static char *text; static union word words[5]; static long calls;
_Thread_local long here = 4; _Thread_local char mark[9] = "none";
static int (*chosen)(int);
static int twice(int x) { static int asked; asked++; return 2 * x + asked; }
static int thrice(int x) { static long double sum = 0.5L; sum += x; return (int)sum; }
int insert(int key, double weight, const char *name) {
  struct item *made = malloc(sizeof *made);
  memset(made, 0, sizeof *made);
  made->key = key; made->weight = weight; strncpy(made->name, name, sizeof made->name - 1);
  made->other = list ? list->next : 0; made->next = list; list = made;
  if (used == slots) {
    slots = slots ? 2 * slots : 4;
    table = realloc(table, slots * sizeof *table);
    memset(table + used, 0, (slots - used) * sizeof *table);
  }
  table[used++] = made;
  return used;
}
int drop(int count) {
  int gone = 0;
  while (list && gone < count) {
    struct item *first = list;
    for (int i = 0; i < used; i++) if (table[i] == first) table[i] = table[--used];
    for (struct item *at = list; at; at = at->next) if (at->other == first) at->other = 0;
    list = first->next; free(first); gone++;
  }
  return gone;
}
int note(const char *more) {
  size_t old = text ? strlen(text) : 0;
  char *made = realloc(text, old + strlen(more) + 1);
  strcpy(made + old, more); text = made;
  return (int)strlen(text);
}
int visit(struct item *at, int depth) {
  if (!at || depth > 40) return 0;
  at->key += depth; return at->key + visit(at->next, depth + 1);
}
int word(int index, unsigned whole, float real) {
  union word *at = &words[(unsigned)index % 5];
  if (whole % 2) at->real = real; else at->half[whole % 4 / 2] = (unsigned short)whole;
  return (int)at->part[1];
}
int choose(int which, int x) { chosen = which % 2 ? twice : thrice; calls++; return chosen(x); }
long local(int x) {
  here += x; mark[(unsigned)x % 8] = (char)('a' + (unsigned)x % 26); return here;
}
long long deep(int n) { long part[4] = {n, 1, 2, 3}; if (n <= 0) return part[1];
  part[(unsigned)n % 4] += deep(n - 1); return part[0] + part[3]; }
"""


def generate(seed: int) -> "tuple[str, list[str]]":
    """(source, call expressions)."""
    return _Program(random.Random(seed)).make()


class _Program:
    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.lines = [HEAD]
        self.calls: "list[str]" = []
        self.used: "list[str]" = []

    def number(self, most: int = 300) -> int:
        return self.choose.randrange(-most, most)

    def member(self, depth: int, name: str) -> "tuple[str, list[tuple[str, str]]]":
        """(declaration, its scalars as (path, type))."""
        kind = self.choose.random()
        if depth and kind < 0.25:
            word = self.choose.choice(("struct", "struct", "union"))
            inner, leaves = self.members(depth - 1)
            return f"{word} {{ {inner} }} {name};", [(f"{name}.{p}", t) for p, t in leaves]
        if depth and kind < 0.45:
            count = self.choose.randrange(1, 5)
            text, leaves = self.member(depth - 1, f"{name}[{count}]")
            at = self.choose.randrange(count)
            return text, [(p.replace(f"{name}[{count}]", f"{name}[{at}]", 1), t) for p, t in leaves]
        if kind < 0.6 and "[" not in name:
            width = self.choose.randrange(2, 15)
            whole = self.choose.choice(("int", "unsigned", "unsigned long"))
            return f"{whole} {name} : {width};", [(name, whole)]
        scalar = self.choose.choice(SCALARS)
        return f"{scalar} {name};", [(name, scalar)]

    def members(self, depth: int) -> "tuple[str, list[tuple[str, str]]]":
        texts, leaves = [], []
        for index in range(self.choose.randrange(1, 6)):
            text, found = self.member(depth, f"m{index}")
            texts.append(text)
            leaves += found
        return " ".join(texts), leaves

    def make_struct(self, number: int) -> None:
        inner, leaves = self.members(2)
        tag, it = f"struct made{number}", f"g{number}"
        static = self.choose.choice(("", "static "))
        self.lines.append(f"{tag} {{ {inner} }};\n{static}{tag} {it}; {tag} {it}_copy;")
        lines = []
        for path, kind in self.choose.sample(leaves, min(len(leaves), 3)):
            cast = "(_Bool)(x & 1)" if kind == "_Bool" else f"({kind})(x * {self.number()})"
            if kind == "enum shade":
                cast = "x % 2 ? LIGHT : MIDDLE"
            op = "=" if kind in ("_Bool", "enum shade") else self.choose.choice(("=", "+="))
            lines.append(f"  {it}.{path} {op} {cast};")
        self.lines.append(f"long set{number}(long x) {{\n" + "\n".join(lines))
        self.lines.append(f"  return (long)({it}.{self.choose.choice(leaves)[0]}); }}")
        self.lines.append(f"{tag} pass{number}({tag} by, int x) {{ {it}_copy = by; return by; }}")
        self.calls += [f"set{number}({self.number()})", f"set{number}({self.number(1 << 40)})"]
        self.calls.append(f"pass{number}({it}, {self.number()})")
        self.used += [f"set{number}(1)", f"pass{number}({it}, 1)"]

    def make_scalar(self, number: int) -> None:
        kind = self.choose.choice(SCALARS)
        one, other = self.choose.choice(WHOLE[:8]), self.choose.choice(("double", "float", "long"))
        self.lines.append(f"{kind} s{number};")
        self.lines.append(
            f"{kind} mix{number}({one} a, {other} b, {kind} c) "
            f"{{ s{number} = ({kind})((long)a + (long)b); return c; }}"
        )
        value = "DARK" if kind == "enum shade" else f"({kind}) {abs(self.number(100))}"
        self.calls.append(f"mix{number}({self.number(100)}, {self.number()}, {value})")
        self.used.append(f"mix{number}(1, 2, 0)")

    def make(self) -> "tuple[str, list[str]]":
        for number in range(self.choose.randrange(1, 4)):
            self.make_struct(number)
        for number in range(3):
            self.make_scalar(number)
        self.lines.append(BODY)
        starts = [f'insert({self.number()}, {self.number()}.5, "n{i}");' for i in range(9)]
        used = " ".join(f"{call};" for call in self.used)
        self.lines.append(
            "int main(int argc, char **argv) {\n  " + " ".join(starts[: self.choose.randrange(9)])
            + f'\n  note("begin"); choose(1, 2); deep(3); word(1, 2, 3); local(1); drop(1);\n'
            f"  stop(); if (argc > 9) {{ {used} visit(list, 0); }}\n  return 0; }}"
        )  # fmt: skip
        self.lines.insert(1, '__attribute__((noinline)) void stop(void) { __asm__ volatile(""); }')
        self.calls += [
            f'insert({self.number()}, {self.number()}.25, "new")',
            f"drop({abs(self.number(5))})",
            f'note("{"more" * abs(self.number(60))}")',
            "visit(list, 0)",
            f"word({abs(self.number(9))}, {abs(self.number())}, 2.5)",
            f"choose({abs(self.number(3))}, {self.number()})",
            f"local({abs(self.number(40))})",
            f"deep({abs(self.number(30))})",
        ]
        return "\n".join(self.lines) + "\n", self.choose.sample(self.calls, 5)
