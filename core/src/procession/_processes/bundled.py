"""What a fresh interpreter does with a bundle: it has its first modules without looking for them.

The code of this module is in the bundle, too, and is run before anything of procession can be
imported. So it imports nothing that would have to be read from a file, not even `__future__`.
"""

import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import SourceFileLoader, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def load(modules: "list[tuple[str, str, CodeType]]") -> None:
    """Make *modules*, given by name, file and code, each before those that import it.

    Each becomes what an import of its file would have made of it. One that is here already, since
    something was imported before us, is left as it is.
    """
    for name, file, code in modules:
        if name in sys.modules:
            continue
        spec = spec_from_file_location(name, file, loader=SourceFileLoader(name, file))
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        package, _, last = name.rpartition(".")
        if package:
            setattr(sys.modules[package], last, module)
