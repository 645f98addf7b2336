// The library of abroad.c.
int lib_calls;

int lib_add(int x)
{
	lib_calls++;
	return x + 100;
}
