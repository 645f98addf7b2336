"""What pyproject.toml cannot say: the native module is built by cffi in API mode."""

from pathlib import Path

from setuptools import setup

BUILDER = "gdb_uffd/native/build.py"

setup(cffi_modules=[f"{BUILDER}:ffibuilder"] if Path(BUILDER).exists() else [])
