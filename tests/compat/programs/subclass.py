# mypy: ignore-errors
"""A subclass of Process with a run of its own, and one that forgets to call __init__."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


class Greeter(mp.Process):
    def __init__(self, conn, who):
        super().__init__(name=f"greeter of {who}")
        self.conn = conn
        self.who = who

    def run(self):
        self.conn.send(f"hello {self.who}, this is {mp.current_process().name}")
        sys.exit(len(self.who))


class Plain(mp.Process):
    def run(self):
        print("plain run", flush=True)


if __name__ == "__main__":
    mp.set_start_method(sys.argv[2])
    here, there = mp.Pipe()
    process = Greeter(there, "alice")
    print(process.name, process.daemon, process.exitcode)
    process.start()
    print(here.recv())
    process.join()
    print(process.exitcode, process.name)
    plain = Plain()
    print(plain.name)
    plain.start()
    plain.join()
    print(plain.exitcode)
