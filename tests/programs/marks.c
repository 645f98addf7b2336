// Objects of an assembler's: one with a size under two names, one without, and what lies behind.
#include <signal.h>
#include <unistd.h>

extern char flag[], bare[], behind[], first[], fenced[];
long *where;

__asm__(".bss\n"
	".balign 4096\n"
	".globl first\n"
	"first: .skip 4096\n" // no size: the linker's own marks have none, either
	".globl sized_flag, flag\n"
	".type sized_flag, %object\n"
	".size sized_flag, 4\n"
	"sized_flag:\n"
	"flag: .skip 4\n" // as a versioned name has one without its version
	".skip 0x2ffc\n"
	".globl bare\n"
	"bare: .skip 0x800000\n"
	".globl fenced\n"
	".type fenced, %object\n"
	".size fenced, 0x40000\n"
	"fenced: .skip 0x40000\n"
	".skip 0x1000\n"
	".text\n");

int poke(int n)
{
	flag[2] = (char)n;
	flag[0x338] = (char)n;	  // behind the object
	bare[8] = (char)n;	  // without a size: near
	bare[0x700000] = (char)n; // and far
	fenced[0x20000] = (char)n;
	fenced[0x40008] = (char)n;
	where = (long *)(bare + 0x700000);
	return n;
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 5)
		return poke(1);
	raise(SIGABRT);
	return 0;
}
