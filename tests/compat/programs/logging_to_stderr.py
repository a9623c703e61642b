# mypy: ignore-errors
"""The logger, in parent and child."""

import importlib
import logging
import sys

mp = importlib.import_module(sys.argv[1])


def work():
    logger = mp.get_logger()
    logger.error("child says %s", "error")
    logger.debug("child says debug")
    print(logger.level, len(logger.handlers), bool(logger.propagate), flush=True)


if __name__ == "__main__":
    logger = mp.get_logger()
    print(logger.level, logger.handlers, bool(logger.propagate))
    mp.log_to_stderr()
    logger.setLevel(logging.WARNING)
    logger.warning("doomed")
    p = mp.get_context(sys.argv[2]).Process(target=work, name="worker")
    p.start()
    p.join()
    print(p.exitcode)
