# mypy: ignore-errors
"""Subclasses, names, exit codes, tracebacks, logging, signals; ends with a status of its own."""

import logging
import multiprocessing
import signal
import sys
import time
from multiprocessing import Process, current_process, parent_process


class Greeter(Process):
    def __init__(self, whom):
        super().__init__(name=f"greeter of {whom}")
        self.whom = whom

    def run(self):
        logging.basicConfig(format="%(processName)s: %(message)s", stream=sys.stdout)
        logging.warning("hello %s", self.whom)
        print(current_process().name, parent_process().name)


def leave(how):
    if how == "message":
        sys.exit("said on stderr")
    if isinstance(how, int):
        sys.exit(how)
    raise LookupError(how)


def sleep():
    time.sleep(60)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    greeter = Greeter("bob")
    greeter.daemon = True
    print(greeter.is_alive(), greeter.exitcode, greeter.daemon)
    greeter.start()
    greeter.join()
    for how in (0, 5, "message", "nothing there"):
        process = Process(target=leave, args=(how,), name="leaver")
        process.start()
        process.join()
        print(process.name, process.exitcode)
    sleeper = Process(target=sleep)
    sleeper.start()
    print(sleeper in multiprocessing.active_children(), sleeper.is_alive())
    sleeper.terminate()
    sleeper.join()
    print(sleeper.exitcode == -signal.SIGTERM)
    sleeper.close()
    try:
        sleeper.is_alive()
    except ValueError as error:
        print(error)
    print(len(sys.argv), __name__)
    sys.exit(7)
