/* python.h - what Python may use: build.py makes cffi's declarations of what is marked. */
#ifndef GDB_UFFD_PYTHON_H
#define GDB_UFFD_PYTHON_H

#define PYTHON /* before a function, a structure or an enum; in the comment behind a #define */

#endif
