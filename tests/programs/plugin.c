// A library that is opened at run time: its thread-locals are allocated on a thread's first touch.
__thread long plugin_tls[64] = {7};

long plugin_bump(void)
{
	return ++plugin_tls[0];
}

int plugin_answer(int x)
{
	return x * 2 + 1;
}
