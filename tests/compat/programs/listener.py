# mypy: ignore-errors
"""A server and a client that share an address and a key; who does not know the key stays out."""

import importlib
import sys
import threading

mp = importlib.import_module(sys.argv[1])
connection = importlib.import_module(sys.argv[1] + ".connection")


def client(address, key, say=print):
    try:
        with connection.Client(address, authkey=key) as conn:
            conn.send([2.25, None, "junk", float])
            conn.send_bytes(b"hello")
            say(conn.recv())
    except mp.AuthenticationError as error:
        say(str(error).partition(":")[0])


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    for family in ("AF_INET", "AF_UNIX"):
        with connection.Listener(family=family, authkey=b"secret password") as listener:
            p = ctx.Process(target=client, args=(listener.address, b"secret password"))
            p.start()
            with listener.accept() as conn:
                print(conn.recv(), conn.recv_bytes())
                conn.send("bye")
                try:
                    conn.recv()
                except EOFError:
                    print("end of file")
            p.join()
            said = []
            args = (listener.address, b"wrong", said.append)
            thread = threading.Thread(target=client, args=args)
            thread.start()
            try:
                listener.accept()
            except mp.AuthenticationError as error:
                print("server", str(error).partition(":")[0])
            thread.join()
            print("client", said)
        try:
            listener.accept()
        except OSError as error:
            print(error)
    for bad in ({"authkey": "text"}, {"family": "AF_PIPE"}, {"address": 42}):
        try:
            connection.Listener(**bad)
        except (TypeError, ValueError) as error:
            print(type(error).__name__, str(error).partition(":")[0])
