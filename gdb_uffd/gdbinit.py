"""The file that ~/.gdbinit sources: `source /path/to/gdb_uffd/gdbinit.py`.

It makes this package importable in gdb's own Python, whatever version that is, and
registers the commands.  Only the standard library is used on gdb's side.
"""

import importlib.util
import os
import sys


def _load() -> None:
    """Import the package this file lies in, without a change to sys.path.

    The package's parent may be the site-packages of quite another Python, whose modules
    must not shadow those of gdb's.
    """
    if "gdb_uffd" not in sys.modules:
        directory = os.path.dirname(os.path.realpath(__file__))
        spec = importlib.util.spec_from_file_location(
            "gdb_uffd",
            os.path.join(directory, "__init__.py"),
            submodule_search_locations=[directory],
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["gdb_uffd"] = package
        spec.loader.exec_module(package)
    commands = importlib.import_module("gdb_uffd.commands")
    commands.register()


if sys.version_info < (3, 9):  # noqa: UP036  # gdb may embed an older Python than this needs
    print("gdb_uffd: this gdb has Python " + sys.version.split()[0] + "; 3.9 or later is needed")
else:
    _load()
