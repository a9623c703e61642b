"""The compiled half, which is optional: without a compiler the pure-Python twin is used."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from glob import glob
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A release must have it, so a build that cannot make it fails then; and so does one with
# warnings.
REQUIRED = os.environ.get("PROCESSION_RING_REQUIRE_EXTENSION") == "1"


class BuildInOneStep(build_ext):
    """Puts the extension where it belongs in one step, or takes away what is not of these sources.

    An editable installation writes it between the sources, where other environments may be
    using an earlier build of it at that very moment.
    """

    def copy_extensions_to_source(self) -> None:
        """Copy what could be built; an earlier build of what could not must not be used."""
        super().copy_extensions_to_source()
        for extension in self.extensions:
            file = self.get_ext_filename(extension.name)  # type: ignore[no-untyped-call]
            if not os.path.exists(os.path.join(self.build_lib, file)):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join("src", file))

    # The supertype's overloads are about paths of bytes, which nobody has here.
    def copy_file(  # type: ignore[override]
        self, infile: str, outfile: str, *args: Any, **options: Any
    ) -> tuple[str, bool]:
        """Copy to a name of our own and rename that."""
        unfinished = f"{outfile}.{os.getpid()}"
        super().copy_file(infile, unfinished, *args, **options)
        os.replace(unfinished, outfile)
        return outfile, True


extensions: list[Extension] = []
if sys.platform == "linux":
    extensions.append(
        Extension(
            "procession_ring._native",
            sources=sorted(glob("csrc/*.c")),
            depends=sorted(glob("csrc/*.h")),
            include_dirs=["csrc"],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
            extra_compile_args=[
                "-std=c11",
                "-O2",
                "-fvisibility=hidden",
                "-Wall",
                "-Wextra",
                "-Werror=implicit-function-declaration",
                *(["-Werror"] if REQUIRED else []),
            ],
            py_limited_api=True,
            optional=not REQUIRED,
        )
    )

setup(
    cmdclass={"build_ext": BuildInOneStep},
    ext_modules=extensions,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {},
)
