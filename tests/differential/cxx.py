"""C++ programs from a seed: classes with virtual functions and bases, templates, containers,
references, exceptions; globals of them, and calls that change some."""

import random

SCALARS = ("int", "unsigned char", "short", "long", "double", "bool", "unsigned long long", "float")


HEAD = """\
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
template <class T, int N> struct Ring {
  T at[N]; int next = 0;
  T push(T v) { T old = at[next]; at[next] = v; next = (next + 1) % N; return old; }
};
enum class Mood : unsigned char { calm, glad = 5, odd };"""

BODY = """\
std::vector<int> g_list(3, 7); std::map<int, long> g_map; std::string g_text = "begin";
std::unique_ptr<int> g_own(new int(4)); int g_count; int *g_at = &g_count;
thread_local int g_tls = 3; static long g_grid[3][4]; const char *g_name = "none";
int grow(int n) { for (int i = 0; i < n; i++) g_list.push_back(i * n); return (int)g_list.size(); }
long note(int k, long v) { g_map[k] += v; return (long)g_map.size() * 1000 + g_map[k]; }
int say(const char *s) { g_text += s; g_name = "said"; return (int)g_text.size(); }
int guard(int x) {
  try { if (x > 0) throw std::runtime_error("no"); g_count++; }
  catch (const std::exception &e) { g_count += (int)strlen(e.what()) + x; }
  return g_count;
}
double mix(double a, float b, char c, long d) { g_grid[1][2] += d; return a * b + c + d; }
int own(int x) { *g_own += x; *g_at -= x; return *g_own + ++g_tls; }
int sort3(int a, int b, int c) {
  int v[3] = {a, b, c};
  for (int i = 0; i < 3; i++)
    for (int j = i + 1; j < 3; j++)
      if (v[j] < v[i]) { int t = v[i]; v[i] = v[j]; v[j] = t; }
  for (int i = 0; i < 3; i++) g_grid[i][0] = v[i];
  return v[0] * 10000 + v[1] * 100 + v[2];
}
int main(int argc, char **argv) {
  if (argc > 9) {
    USED
    g_ring.push(1); grow(1); note(1, 2); say(argv[0]); guard(1); mix(1, 2, 3, 4); own(1);
    sort3(1, 2, 3);
  }
  return 0;
}"""


def generate(seed: int) -> "tuple[str, list[str]]":
    """(source, call expressions)."""
    return _Program(random.Random(seed)).make()


class _Program:
    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.lines = [HEAD]
        self.calls: list[str] = []

    def number(self) -> int:
        return self.choose.randrange(-200, 200)

    def members(self, prefix: str) -> "list[tuple[str, str]]":
        found = []
        for index in range(self.choose.randrange(1, 6)):
            kind = self.choose.choice(SCALARS)
            found.append((kind, f"{prefix}{index}"))
        return found

    def make_class(self, name: str, base: str) -> None:
        fields, it = self.members(name.lower()), f"g_{name.lower()}"
        virtual = "virtual " if self.choose.random() < 0.5 or base else ""
        inherit = f" : {self.choose.choice(('', 'virtual '))}public {base}" if base else ""
        self.lines.append(f"struct {name}{inherit} {{")
        self.lines += [f"  {kind} {field} = {abs(self.number()) % 2};" for kind, field in fields]
        if self.choose.random() < 0.4:
            self.lines += [
                "  unsigned bits : 3; int more : 9; Mood mood;",
                "  int flag(int x) { bits = x; more -= x; mood = Mood::glad; return bits + more; }",
            ]
            self.calls.append(f"{it}.flag({abs(self.number()) % 8})")
        target = self.choose.choice(fields)[1]
        self.lines += [
            f"  {virtual}int work(int x) {{ {target} += x; return (int){target} * 3; }}",
            f"  {virtual}~{name}() {{}}" if virtual else "",
            f"}};\n{name} {it};",
            f"int on_{it}({name} &it, int x) {{ return it.work(x) + it.work(1); }}",
        ]
        self.calls += [f"{it}.work({self.number()})", f"on_{it}({it}, {self.number()})"]

    def make(self) -> "tuple[str, list[str]]":
        names: list[str] = []
        for name in ("Apple", "Berry", "Cherry", "Date")[: self.choose.randrange(2, 5)]:
            self.make_class(name, self.choose.choice([*names, ""]) if names else "")
            names.append(name)
        size, kind = self.choose.randrange(2, 9), self.choose.choice(SCALARS[:4])
        used = " ".join(f"{call};" for call in self.calls)
        self.lines += [f"Ring<{kind}, {size}> g_ring;", BODY.replace("USED", used)]
        self.calls += [
            f"grow({abs(self.number()) % 40})",
            f"note({self.number()}, {self.number()})",
            f"guard({self.number()})",
            f"mix({self.number()}.5, 2.25, 65, {self.number()})",
            f"own({self.number()})",
            f"sort3({self.number()}, {self.number()}, {self.number()})",
            f"g_ring.push({abs(self.number()) % 100})",
        ]
        return "\n".join(self.lines) + "\n", self.choose.sample(self.calls, 5)
