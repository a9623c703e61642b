# mypy: ignore-errors
"""Pipes, waiting for several of them, and a listener with a key."""

import multiprocessing
import sys
from multiprocessing import AuthenticationError, Pipe, Process
from multiprocessing.connection import Client, Listener, wait


def send(connection, number):
    for item in range(3):
        connection.send((number, item))
    connection.close()


def call(address, key):
    try:
        connection = Client(address, authkey=key)
    except AuthenticationError:
        sys.exit("not let in")
    with connection:
        connection.send(["hello", 1, None])
        connection.send_bytes(b"bytes")
        print("answer", connection.recv(), flush=True)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    readers, got = [], []
    for number in range(3):
        reader, writer = Pipe(duplex=False)
        readers.append(reader)
        process = Process(target=send, args=(writer, number))
        process.start()
        writer.close()
    while readers:
        for reader in wait(readers):
            try:
                got.append(reader.recv())
            except EOFError:
                readers.remove(reader)
    print(sorted(got))
    for process in multiprocessing.active_children():
        process.join()

    with Listener(("localhost", 0), authkey=b"secret") as listener:
        process = Process(target=call, args=(listener.address, b"secret"))
        process.start()
        with listener.accept() as connection:
            print(connection.recv(), connection.recv_bytes())
            connection.send("bye")
        process.join()
        process = Process(target=call, args=(listener.address, b"wrong"))
        process.start()
        try:
            listener.accept()
        except AuthenticationError:
            print("refused")
        process.join()
        print(process.exitcode)
