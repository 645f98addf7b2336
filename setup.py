"""What pyproject.toml cannot say: cffi builds the native module in API mode, before the rest."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

NATIVE = Path(__file__).parent / "gdb_uffd" / "native"
lacking = runpy.run_path(str(NATIVE / "toolchain.py"))["lacking"]


class NativeFirst(build):
    """A machine that cannot build it says so before anything else is said."""

    sub_commands = sorted(build.sub_commands, key=lambda command: command[0] != "build_ext")


class BuildNative(build_ext):
    """Ends in one line where the compiler or its headers lack."""

    def run(self) -> None:
        what = lacking()
        if what:
            raise SystemExit(f"gdb_uffd: {what}")
        super().run()


setup(
    cmdclass={"build": NativeFirst, "build_ext": BuildNative},
    cffi_modules=["gdb_uffd/native/build.py:ffibuilder"],
)
