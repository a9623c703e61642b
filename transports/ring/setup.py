"""The compiled half, which is optional: without a compiler the pure-Python twin is used."""

from __future__ import annotations

import os
import sys
from glob import glob

from setuptools import Extension, setup

# A release must have it, so a build that cannot make it fails then; and so does one with
# warnings.
REQUIRED = os.environ.get("PROCESSION_RING_REQUIRE_EXTENSION") == "1"

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
                *(["-Werror"] if REQUIRED else []),
            ],
            py_limited_api=True,
            optional=not REQUIRED,
        )
    )

setup(
    ext_modules=extensions,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {},
)
