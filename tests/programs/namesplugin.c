// A library that names opens: its thread-locals are allocated when a thread first uses them.
static __thread struct {
	int first, second;
} plugin_pair;
__thread int plugin_tls;

int plugin_set(int n)
{
	plugin_pair.second = n + 1;
	plugin_tls = n;
	return n;
}
