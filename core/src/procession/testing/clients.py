"""What the workers of other libraries do in the tests that run those on procession.

The libraries are imported inside the functions: none of them is needed to import this module.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def square(number: int) -> int:
    """Return the square."""
    return number * number


def fail(text: str) -> None:
    """Fail."""
    raise ArithmeticError(text)


def kill_me(*ignored: object) -> None:
    """Be killed in the middle of a task."""
    os.kill(os.getpid(), 9)


def kill_me_when_told(fifo: str) -> None:
    """Be killed in the middle of a task, once somebody opens *fifo*, a named pipe, to write."""
    with open(fifo, encoding="ascii"):
        kill_me()


def hang(*ignored: object) -> None:
    """Never return."""
    import threading

    threading.Event().wait()


def nested(number: int) -> tuple[bool, list[int]]:
    """Return whether joblib sees that this process is one, and what it computes in it."""
    import multiprocessing

    from joblib import Parallel, delayed

    daemon = multiprocessing.current_process().daemon
    return daemon, Parallel(n_jobs=2)(delayed(square)(each) for each in range(number))


def total(array: Any) -> tuple[float, str]:
    """Return the sum of an array, and the class that it came as."""
    return float(array.sum()), type(array).__name__


def with_lock(number: int) -> bool:
    """Return whether tqdm's lock can be taken here."""
    from tqdm import tqdm

    with tqdm.get_lock():
        return number >= 0


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request with this process's number and its name by the standard package."""
    import multiprocessing

    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    body = f"{os.getpid()} {multiprocessing.current_process().name}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# -- PyTorch


class Rows:
    """A data set whose items are rows of a shared tensor; each is marked when it is taken."""

    def __init__(self, tensor: Any, *, kill: bool = False) -> None:
        self.tensor = tensor
        self.kill = kill

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, position: int) -> Any:
        if self.kill:
            kill_me()
        self.tensor[position] += position + 1
        return self.tensor[position]


def share_tensors(tensor: Any, queue: Any, connection: Any) -> None:
    """Write to a tensor that was an argument, and send new ones both ways."""
    import torch

    tensor += 5
    queue.put(torch.full((1000,), 3.0))
    connection.send([torch.full((1000,), 4.0), tensor])
    connection.recv()


def double(tensor: Any) -> Any:
    """Return twice the tensor."""
    return tensor * 2
