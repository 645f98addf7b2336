// Functions inlined into one another, each of which begins where the other calls it.
volatile int sink, counter;

static inline __attribute__((always_inline)) int inner(int a)
{
	int b = a * 3;

	sink = b;
	counter++;
	return b + sink;
}

static inline __attribute__((always_inline)) int middle(int a)
{
	int m = a + 7;

	sink = m;
	return inner(m) + m;
}

__attribute__((noinline)) int outer(int a)
{
	sink = 1;
	return middle(a) + 1;
}

int main(void)
{
	for (int i = 0; i < 3; i++)
		sink = outer(i);
	return 0;
}
