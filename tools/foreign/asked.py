"""What is asked of each program, alive and in its core, in this order; each sees what those before
it did."""

ABROAD = [
    "sum()", "bump(2)", "walk()", "tls()", "counter", "*head", "lib_add(5)", "lib_calls",
    "push(7)", "walk()", "head->next->value", "say(3)", "*sorted()@10", '*twice("ab")@5',
    "power(4.0)", "(int)strlen(\"four\")", "$_siginfo.si_signo == 11 ? 1 : 1", "numbers",
]  # fmt: skip
"""The first six need nothing but the program itself; see WITHOUT."""

WITHOUT = 6
"""Expressions of ABROAD that need no library."""

PYTHON = [
    "((int (*)(void))Py_IsInitialized)()",
    "((const char *(*)(void))Py_GetVersion)()",
    "((int (*)(void))PyGILState_Ensure)()",
    '((int (*)(const char *))PyRun_SimpleString)("n = sum(range(100)); d = {n: str(n)}")',
    "((long (*)(void *))PyLong_AsLong)(((void *(*)(const char *, void *, int))PyLong_FromString)"
    '("12345678901", 0, 10))',
    "((int (*)(const char *))PyRun_SimpleString)(\"assert d[4950] == '4950'\")",
    '((int (*)(const char *))PyRun_SimpleString)("assert not d")',
]
