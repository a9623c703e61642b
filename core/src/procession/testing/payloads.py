"""What runs in children: functions and classes that every start method can import.

A fresh interpreter finds the target of a process by its module and name, so what tests start must
live in an installed module, not in a test file. This one imports almost nothing, since each child
imports it. Answers travel through the connection or queue given as an argument, never by timing.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

Spec = tuple[str, str, str]
_SIGKILL = 9


def context(spec: Spec) -> Any:
    """The context of ``(package, start method, transport)``; multiprocessing has one transport."""
    name, method, transport = spec
    package = __import__(name)
    if name == "multiprocessing":
        return package.get_context(method)
    return package.get_context(method, transport=transport)


def nothing() -> None:
    """Return at once: exit code 0."""


def nothing_with(argument: object) -> None:
    """Return at once, whatever the argument."""


class Reference:
    """Something that can be pickled and weakly referred to."""


def send_all(connection: Any, messages: list[Any]) -> None:
    """Send each message, then end."""
    for message in messages:
        connection.send(message)


def send_arguments(connection: Any, *args: Any, **kwargs: Any) -> None:
    """Send what the process was called with."""
    connection.send((args, kwargs))


def call(connection: Any, function: Any, *args: Any) -> None:
    """Send what ``function(*args)`` returns."""
    connection.send(function(*args))


def is_of_context(method: str) -> bool:
    """Return whether this process is one of the context of its start method."""
    import procession

    context: Any = procession.get_context(method)
    return isinstance(procession.current_process(), context.Process)


def hold(connection: Any) -> None:
    """Say ``ready``, then wait until a message comes."""
    connection.send("ready")
    connection.recv()


def hold_for_ever() -> None:
    """Never return."""
    if sys.platform == "win32":
        raise OSError("this platform has no signal.pause")
    import signal

    while True:
        signal.pause()


def exit_with(code: Any) -> None:
    """End by ``sys.exit(code)``."""
    sys.exit(code)


def exit_at_once(code: int) -> None:
    """End without any cleaning up."""
    os._exit(code)


def raise_error(text: str) -> None:
    """Fail."""
    raise ArithmeticError(text)


def die_by(number: int) -> None:
    """Be killed by a signal."""
    os.kill(os.getpid(), number)


def hold_and_handle(connection: Any, number: int) -> None:
    """Say ``ready``; when the signal comes, send its number and return."""
    import signal

    received: list[int] = []
    reader, writer = os.pipe()

    def note(signal_number: int, frame: object) -> None:
        received.append(signal_number)
        os.write(writer, b"x")

    signal.signal(number, note)
    connection.send("ready")
    os.read(reader, 1)
    connection.send(received)


def identity(spec: Spec) -> dict[str, Any]:
    """What a process knows about itself and its parent."""
    package = __import__(spec[0])
    me, parent = package.current_process(), package.parent_process()
    return {
        "pid": os.getpid(),
        "ident": me.ident,
        "name": me.name,
        "daemon": me.daemon,
        "authkey": bytes(me.authkey),
        "alive": me.is_alive(),
        "exitcode": me.exitcode,
        "children": package.active_children(),
        "parent_name": parent.name,
        "parent_pid": parent.pid,
        "parent_alive": parent.is_alive(),
    }


def child_names(spec: Spec) -> list[str]:
    """The default names of two processes that this process makes."""
    ctx = context(spec)
    return [ctx.Process(target=nothing).name for _ in range(2)]


def environment_of_child() -> dict[str, Any]:
    """What a child sees of its surroundings."""
    return {
        "argv": sys.argv,
        "path": sys.path,
        "cwd": os.getcwd(),
        "stdin": sys.stdin.read() if sys.stdin is not None else "",
        "flags": tuple(sys.flags),
        "variable": os.environ.get("PROCESSION_TESTS_VARIABLE"),
    }


def threads_of_child() -> list[tuple[str, int | None]]:
    """Name and native number of each thread that a child knows of."""
    import threading

    return [(each.name, each.native_id) for each in threading.enumerate()]


def log_level(package_name: str) -> Any:
    """The level that counts for the package's logger here."""
    return __import__(package_name).get_logger().getEffectiveLevel()


def chosen_method(package_name: str) -> Any:
    """The start method that this process would use for its own children."""
    return __import__(package_name).get_start_method()


def open_descriptors() -> list[str]:
    """What the descriptors of this process refer to, the one that lists them left out."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the one that lists them
            continue
    return found


def misuse(connection: Any, process: Any) -> None:
    """Call what only the creator of a process may call; send the error of each."""
    answers = []
    for name in ("start", "join", "is_alive"):
        try:
            getattr(process, name)()
        except Exception as error:  # the error is the answer
            answers.append((name, type(error), str(error)))
    connection.send(answers)


def nest(connection: Any, specs: list[Spec]) -> None:
    """Start a child of the first context, which starts one of the next, and so on; report down.

    The last one sends its pid to the top; each process ends with the number of levels below it.
    """
    if not specs:
        connection.send(os.getpid())
        return
    process = context(specs[0]).Process(target=nest, args=(connection, specs[1:]))
    process.start()
    process.join()
    sys.exit(process.exitcode + 1)


def start_daemon(connection: Any, spec: Spec) -> None:
    """Start a daemonic child that never ends, send its pid, and end normally."""
    process = context(spec).Process(target=hold_for_ever, daemon=True)
    process.start()
    connection.send(process.pid)


def start_child(connection: Any, spec: Spec) -> None:
    """Start a child that ends at once; send its exit code or the error."""
    process = context(spec).Process(target=nothing)
    try:
        process.start()
    except Exception as error:  # the error is the answer
        connection.send((type(error), str(error)))
        return
    process.join()
    connection.send(process.exitcode)


def watch_parent(connection: Any, spec: Spec, orders: Any) -> None:
    """Start a child that watches this process; then end by SIGKILL when told to."""
    process = context(spec).Process(target=report_parent, args=(connection, spec[0]))
    process.start()
    orders.recv()
    os.kill(os.getpid(), _SIGKILL)


def report_parent(connection: Any, package_name: str) -> None:
    """Say whether the parent lives; when its sentinel is ready, say so again."""
    import select

    parent = __import__(package_name).parent_process()
    connection.send(parent.is_alive())
    ready = select.select([parent.sentinel], [], [], 20)[0]
    connection.send((bool(ready), parent.is_alive()))


def loaded_modules(names: list[str]) -> list[str]:
    """Those of ``names`` that this process has imported."""
    return [name for name in names if name in sys.modules]


class SquareMixin:
    """What a subclass of ``Process`` adds: attributes and a `run` that sends a square."""

    def __init__(self, connection: Any, number: int) -> None:
        """Keep both for `run`."""
        super().__init__()
        self.connection = connection
        self.number = number

    def run(self) -> None:
        """Send the square of the number."""
        self.connection.send(self.number**2)


class OptionReaderMixin:
    """What a subclass of ``Process`` adds that knows nothing of options."""

    def __init__(self, connection: Any) -> None:
        """Keep the connection for `run`."""
        super().__init__()
        self.connection = connection

    def run(self) -> None:
        """Send a variable, and the options that the object has in the child."""
        me: Any = self
        self.connection.send((os.environ.get("PROCESSION_TESTS_OPTION"), me.process_options))


def squarer(spec: Spec) -> Any:
    """The subclass of a context's ``Process``, such as ``Squarer__procession__spawn__pipe``."""
    return getattr(sys.modules[__name__], "__".join(("Squarer", *spec)))


def option_reader(spec: Spec) -> Any:
    """The subclass of a context's ``Process`` that sends what it was given."""
    return getattr(sys.modules[__name__], "__".join(("OptionReader", *spec)))


def __getattr__(name: str) -> Any:
    """Make a `squarer` or an `option_reader` when pickle looks for it, in whichever process."""
    kind, *spec = name.split("__")
    mixin = {"Squarer": SquareMixin, "OptionReader": OptionReaderMixin}.get(kind)
    if mixin is None or len(spec) != 3:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    bases = (mixin, context((spec[0], spec[1], spec[2])).Process)
    made = globals()[name] = type(name, bases, {"__module__": __name__})
    return made


# Connections


def echo(connection: Any) -> None:
    """Send back every object until ``None`` comes."""
    while (message := connection.recv()) is not None:
        connection.send(message)


def echo_bytes(connection: Any, count: int) -> None:
    """Send back so many byte messages."""
    for _ in range(count):
        connection.send_bytes(connection.recv_bytes())


def use_received(channel: Any) -> None:
    """Receive a connection (through a connection or a queue) and send ``hello`` through it."""
    receive = getattr(channel, "recv", None) or channel.get
    with receive() as connection:
        connection.send("hello")


def echo_through_received(channel: Any) -> None:
    """Receive a connection and send back the first object that comes through it."""
    with channel.recv() as connection:
        connection.send(connection.recv())


def receive_measured(data: Any, report: Any) -> None:
    """Receive one array; report its sum and by how many bytes memory grew meanwhile, at most."""
    report.send("ready")
    measure = PeakMemory()
    array = data.recv()
    growth = measure.growth()
    report.send((int(array[0]), int(array[-1]), array.nbytes, growth))


class PeakMemory:
    """By how much the resident memory of this process grew, at its highest, since creation.

    Linux only. The peak is reset first: the one that ``getrusage`` reports survives ``exec``.
    """

    def __init__(self) -> None:
        """Reset the peak."""
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self._start = self._read("VmRSS:")

    def growth(self) -> int:
        """The peak above the starting point, in bytes."""
        return self._read("VmHWM:") - self._start

    @staticmethod
    def _read(field: str) -> int:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
        raise LookupError(field)


# Queues


def put_all(queue: Any, items: list[Any]) -> None:
    """Put each item, then end without any further ceremony."""
    for item in items:
        queue.put(item)


def put_into_received(connection: Any, items: list[Any]) -> None:
    """Receive a queue and put each item into it."""
    put_all(connection.recv(), items)


def put_numbered(queue: Any, producer: int, count: int) -> None:
    """Put ``(producer, 0)``, ``(producer, 1)`` ..."""
    for number in range(count):
        queue.put((producer, number))


def get_until_none(queue: Any, answers: Any) -> None:
    """Get items until ``None`` comes; send them all."""
    items = []
    while (item := queue.get()) is not None:
        items.append(item)
    answers.send(items)


def get_and_acknowledge(queue: Any) -> None:
    """Get items and call ``task_done`` for each until ``None`` comes."""
    while queue.get() is not None:
        queue.task_done()
    queue.task_done()


def get_or_error(queue: Any, answers: Any) -> None:
    """Say ``ready`` and get one item; send it or the class of the error."""
    answers.send("ready")
    try:
        answers.send(queue.get())
    except Exception as error:  # the error is the answer
        answers.send(type(error))


def cancel_and_end(queue: Any, items: list[Any]) -> None:
    """Put items that nobody will get, give up on them, and end."""
    queue.cancel_join_thread()
    put_all(queue, items)


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        """Fail."""
        raise TypeError("cannot pickle Unpicklable")


class FailsToUnpickle:
    """Can be sent, cannot be received."""

    def __reduce__(self) -> Any:
        """Make the receiver fail."""
        return (raise_error, ("cannot unpickle",))


def compute_for_ever() -> None:
    """Keep the interpreter's lock in one call that does not end."""
    sum(iter(int, 1))


def start_holding_child(connection: Any, spec: Spec) -> None:
    """Start a child that never ends, say its process id, and never end either."""
    child = context(spec).Process(target=hold_for_ever)
    child.start()
    connection.send(child.pid)
    hold_for_ever()


def refuse_signals() -> None:
    """Ignore every signal that can be ignored, and never end."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold_for_ever()


def report_and_run(connection: Any, function: Any) -> None:
    """Say that we are ready and call *function*."""
    if function is refuse_signals:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("ready")
    function()


# Options


def applied_options(variable: str) -> dict[str, Any]:
    """What the options of a process can change, as the process itself sees it."""
    if sys.platform != "linux":
        raise OSError("only Linux has all of them")
    import faulthandler
    import resource

    mask = os.umask(0)
    os.umask(mask)
    with open("/proc/self/comm") as file:
        command = file.read().rstrip("\n")
    return {
        "variable": os.environ.get(variable),
        "variables": sorted(os.environ),
        "cwd": os.getcwd(),
        "umask": mask,
        "nice": os.nice(0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "cpu_seconds": resource.getrlimit(resource.RLIMIT_CPU),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "faulthandler": faulthandler.is_enabled(),
        "command": command,
        "modules": sorted(sys.modules),
    }


def read_line() -> str:
    """A line of stdin, as a debugger would read it."""
    return input()


def write_both(text: str) -> None:
    """Print to stdout and to stderr, and write to their descriptors."""
    print(f"printed {text}", flush=True)
    os.write(1, b"written\n")
    print(f"complained {text}", file=sys.stderr)


def hash_of(text: str) -> int:
    """A hash, which differs from interpreter to interpreter unless its seed is set."""
    return hash(text)


def hold_memory(size: int) -> None:
    """Use *size* bytes of memory and keep them until killed."""
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    hold_for_ever()


def burn() -> None:
    """Use a CPU until killed."""
    while True:
        pass
