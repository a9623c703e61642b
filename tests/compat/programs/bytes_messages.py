# mypy: ignore-errors
"""The documentation's connection session: objects, bytes, buffers, BufferTooShort."""

import array
import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def main():
    a, b = mp.get_context(sys.argv[2]).Pipe()
    a.send([1, "hello", None])
    print(b.recv())
    b.send_bytes(b"thank you")
    print(a.recv_bytes())
    first = array.array("i", range(5))
    second = array.array("i", [0] * 10)
    a.send_bytes(first)
    print(b.recv_bytes_into(second) == len(first) * first.itemsize, second)
    a.send_bytes(b"much too long")
    try:
        b.recv_bytes_into(bytearray(4))
    except mp.BufferTooShort as error:
        print(type(error).__name__, error.args)
    for arguments in ((b"abc", -1), (b"abc", 4), (b"abc", 0, -1), (b"abc", 2, 2)):
        try:
            a.send_bytes(*arguments)
        except ValueError as error:
            print(error)
    print(a.poll(), b.poll(), a.closed, a.readable, a.writable)
    a.close()
    try:
        b.recv()
    except EOFError as error:
        print(type(error).__mro__[-4:-1], "end")
    try:
        a.send(1)
    except OSError as error:
        print(str(error).partition(":")[0])


if __name__ == "__main__":
    main()
