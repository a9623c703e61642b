# mypy: ignore-errors
"""The documentation's example of a pipe, and what an end without a direction refuses."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def speak(conn):
    conn.send([42, None, "hello"])
    conn.send_bytes(b"thank you")
    conn.close()


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    parent_conn, child_conn = ctx.Pipe()
    p = ctx.Process(target=speak, args=(child_conn,))
    p.start()
    child_conn.close()
    print(parent_conn.recv())
    print(parent_conn.recv_bytes())
    try:
        parent_conn.recv()
    except EOFError:
        print("end of file")
    p.join()
    reader, writer = ctx.Pipe(duplex=False)
    for attempt in (lambda: reader.send(1), writer.recv):
        try:
            attempt()
        except OSError as error:
            print(str(error).partition(":")[0])
