"""File locks: exclusive between threads and processes, gone with their holder."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("file locks need a POSIX system", allow_module_level=True)

from procession._ground import file_lock
from procession._ground.anonymous_file import anonymous_file
from procession._ground.file_lock import FileLock, LockFile
from procession.testing.forked import DEADLINE, crew, sleeps, until


@pytest.fixture
def fd() -> Iterator[int]:
    """A file to lock."""
    fd = anonymous_file("test-lock", bytes(mmap.PAGESIZE))
    yield fd
    os.close(fd)


@pytest.fixture
def file(fd: int) -> Iterator[LockFile]:
    """The file, ready to be locked."""
    file = LockFile(fd)
    yield file
    file.close()


@pytest.fixture(params=[0, 1, 2])
def lock(request: pytest.FixtureRequest, file: LockFile) -> FileLock:
    """Each of the locks of a file."""
    return file.lock(request.param)


def is_free(lock: FileLock) -> bool:
    """Return whether *lock* can be had at once."""
    try:
        lock.run_within(time.monotonic(), lambda: None)
    except BlockingIOError:
        return False
    return True


def increment(words: memoryview, times: int, lock: FileLock) -> None:
    """Add to a number in two steps, which only a lock keeps together."""

    def critical() -> None:
        words[0] = words[0] + 1

    for _ in range(times):
        lock.run(critical)


def test_processes_exclude_each_other(fd: int, lock: FileLock) -> None:
    """No increment of four processes is lost."""
    with mmap.mmap(fd, mmap.PAGESIZE) as memory, memoryview(memory).cast("Q") as words:
        with crew() as fork:
            workers = [fork(lambda: increment(words, 2000, lock)) for _ in range(4)]
            assert [0] * 4 == [worker.join() for worker in workers]

        assert 8000 == words[0]


def test_threads_exclude_each_other(lock: FileLock) -> None:
    """A lock that the kernel gives to the whole process keeps its threads apart, too."""
    inside: list[int] = []
    most: list[int] = []

    def critical() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    def work() -> None:
        for _ in range(500):
            lock.run(critical)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert 2000 == len(most)
    assert 1 == max(most)


def test_the_dead_hold_nothing(fd: int, lock: FileLock) -> None:
    """A holder that is killed releases the lock, and who waits for it goes on."""
    ready, readied = os.pipe()

    def hold() -> None:
        os.write(readied, b"x")
        signal.pause()

    with crew() as fork:
        holder = fork(lambda: lock.run(hold))
        os.read(ready, 1)
        waiter = fork(lambda: lock.run(lambda: None))
        until(lambda: sleeps(waiter.pid))
        assert not waiter.stopped()
        holder.kill()

        assert 0 == waiter.join()
        assert is_free(lock)
    os.close(ready)
    os.close(readied)


def test_closing_a_duplicate_releases_nothing(fd: int, lock: FileLock) -> None:
    """The trap of POSIX locks: any close of any descriptor of the file drops them."""

    def refused() -> None:
        assert not is_free(lock)

    def critical() -> bool:
        os.close(os.dup(fd))
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        with crew() as fork:
            return fork(refused).join() == 0

    assert lock.run(critical)


def test_two_objects_in_one_process_exclude_each_other(fd: int) -> None:
    """A mailbox that is attached twice in a process has two locks, and they are the same."""
    first, second = LockFile(fd), LockFile(fd)
    lock, same, other = first.lock(1), second.lock(1), second.lock(2)

    assert not lock.run(lambda: is_free(same))
    assert lock.run(lambda: is_free(other))
    first.close()
    second.close()


def test_a_forked_child_inherits_no_lock(lock: FileLock) -> None:
    """Forked while another thread holds the lock, a child waits for it like anybody."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(DEADLINE)

    thread = threading.Thread(target=lambda: lock.run(hold))
    thread.start()
    held.wait(DEADLINE)
    with crew() as fork:
        child = fork(lambda: lock.run(lambda: None))
        until(lambda: sleeps(child.pid))
        assert not child.stopped()
        release.set()
        assert 0 == child.join()
    thread.join(DEADLINE)


def test_a_forked_child_keeps_no_lock_of_a_dead_parent(lock: FileLock) -> None:
    """A lock goes with its holder although a child that it forked lives on."""
    ready, readied = os.pipe()
    stop, stopper = os.pipe()

    def hold() -> None:
        if os.fork() == 0:
            os.close(stopper)
            os.write(readied, b"x")
            os.read(stop, 1)
            os._exit(0)
        os.read(stop, 1)

    with crew() as fork:
        holder = fork(lambda: lock.run(hold))
        os.read(ready, 1)
        assert not is_free(lock)
        holder.kill()

        assert is_free(lock)
        os.write(stopper, b"xx")
    for each in (ready, readied, stop, stopper):
        os.close(each)


def test_a_time_limit_is_kept(lock: FileLock) -> None:
    """Waiting in vain ends at the deadline, for threads of this process and for others."""

    refused: list[bool] = []

    def wait() -> None:
        begun = time.monotonic()
        with pytest.raises(BlockingIOError):
            lock.run_within(begun + 0.05, lambda: None)
        assert time.monotonic() - begun >= 0.05
        refused.append(True)

    def critical() -> None:
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(DEADLINE)
        assert [True] == refused
        with crew() as fork:
            assert 0 == fork(wait).join()

    lock.run(critical)


def test_an_exception_releases_it(lock: FileLock) -> None:
    """What the critical section raises comes out, and the lock is free."""
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        lock.run_within(time.monotonic() + 1, lambda: 1 // 0)

    assert is_free(lock)


def test_a_second_entrance_is_refused(lock: FileLock) -> None:
    """A signal handler that wants the lock it interrupted gets an error, and does not hang."""
    with pytest.raises(RuntimeError, match="signal handler"):
        lock.run(lambda: lock.run(lambda: None))

    assert is_free(lock)


def test_closed(fd: int) -> None:
    """A closed lock refuses; closing is idempotent and leaves the file's descriptor alone."""
    file = LockFile(fd)
    lock = file.lock(1)
    lock.run(lambda: None)
    file.close()
    file.close()

    with pytest.raises(OSError, match="closed"):
        lock.run(lambda: None)
    assert os.fstat(fd)


def test_only_used_locks_are_put_in_order(fd: int) -> None:
    """A forked child copies memory for each lock that it puts in order: for those used only."""
    unused, closed, dropped = LockFile(fd), LockFile(fd), LockFile(fd)
    lock = unused.lock()
    before = set(file_lock._used)
    assert closed.lock(1).run(lambda: 1) == 1
    assert closed.lock(2).run(lambda: 2) == 2
    assert dropped.lock().run_within(time.monotonic() + DEADLINE, lambda: 3) == 3
    assert {closed, dropped} == {found() for found in file_lock._used - before}
    closed.close()
    os.close(dropped.descriptor())
    del dropped
    gc.collect()
    assert before == file_lock._used
    unused.close()
    with pytest.raises(OSError, match="closed"):
        lock.run(lambda: None)


def test_a_fork_during_the_first_use(fd: int, lock: FileLock) -> None:
    """A child that is forked while a thread uses a lock for the first time can have it later."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        leave.wait(DEADLINE)

    thread = threading.Thread(target=lock.run, args=(stay,))
    thread.start()
    assert inside.wait(DEADLINE)
    with crew() as start:
        child = start(lambda: lock.run(lambda: None))
        child.await_sleep()  # as the parent's thread holds it
        leave.set()
        thread.join()
        assert child.join() == 0
