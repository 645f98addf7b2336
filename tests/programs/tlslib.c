// A linked library with a thread-local of its own (static TLS).
__thread long lib_tls = 500;

long lib_bump(void)
{
	return ++lib_tls;
}
