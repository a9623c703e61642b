"""The doctor's checks, on systems that are well and on systems that are not."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import procession
from procession._choosing.selection import registry
from procession._commands.doctor import kernel, limits, memory, plugins, python, temporary
from procession._commands.doctor.cpus import cpus
from procession._commands.doctor.examination import checks, examine
from procession._commands.doctor.finding import Finding, Level
from procession._commands.doctor.machine import Machine, size
from procession.testing import failing

if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)

VERSION_2 = "36 25 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
VERSION_1 = "36 25 0:31 / /sys/fs/cgroup/{0} rw - cgroup cgroup rw,{0}\n"


def machine(root: Path, **files: str) -> Machine:
    """Return a machine with *files*, whose names have ``__`` for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".").replace("_DASH_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


def only(findings: Iterable[Finding]) -> Finding:
    """Return the one finding of *findings*."""
    (found,) = findings
    assert bool(found.advice) or found.level in (Level.OK, Level.NOTE)
    return found


def test_kernel_features_are_tried() -> None:
    """This kernel runs these tests, so it has them all."""
    assert only(kernel.kernel(Machine(), kernel.PROBES)).level is Level.OK


def test_a_missing_kernel_feature_is_named() -> None:
    """It is said what is lost, and the others are tried all the same."""

    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    found = only(kernel.kernel(Machine(), {"teleport": (refuse, "nobody travels")}))

    assert (found.level, found.subject) == (Level.PROBLEM, "teleport")
    assert "nobody travels" in found.found
    assert "seccomp" in found.advice


@pytest.mark.parametrize(
    ("setting", "level"),
    [
        ("always [madvise] never", Level.OK),
        ("[always] madvise never", Level.NOTE),
    ],
)
def test_huge_pages(tmp_path: Path, setting: str, level: Level) -> None:
    """The setting in brackets is the one that holds."""
    system = machine(tmp_path, sys__kernel__mm__transparent_hugepage__enabled=setting)

    assert only(kernel.huge_pages(system)).level is level


@pytest.mark.parametrize(
    ("space", "level"),
    [
        ((8 << 30, 7 << 30), Level.OK),
        ((64 << 20, 60 << 20), Level.WARNING),
        ((8 << 30, 1 << 20), Level.WARNING),
    ],
)
def test_shared_memory(tmp_path: Path, space: tuple[int, int], level: Level) -> None:
    """Large is well; what containers get, and what is full, is not."""
    assert only(memory.shared_memory(tmp_path, space)).level is level


def test_no_shared_memory(tmp_path: Path) -> None:
    """A system without the folder is told to mount it."""
    assert "mount" in only(memory.shared_memory(tmp_path / "shm")).advice


@pytest.mark.parametrize(
    ("limit", "used", "level"),
    [
        ("max", "100", Level.OK),
        ("1073741824", "1000", Level.OK),
        ("1073741824", "1073000000", Level.WARNING),
    ],
)
def test_memory_of_the_group(tmp_path: Path, limit: str, used: str, level: Level) -> None:
    """Also the limits of groups above the own one count."""
    system = machine(
        tmp_path,
        proc__self__cgroup="0::/outer/inner\n",
        proc__self__mountinfo=VERSION_2,
        sys__fs__cgroup__outer__memory_DOT_max=limit,
        sys__fs__cgroup__outer__memory_DOT_current=used,
    )

    assert only(memory.group_memory(system)).level is level


def test_memory_of_a_group_of_version_1(tmp_path: Path) -> None:
    """The names of its files are others, and so is what means no limit."""
    system = machine(
        tmp_path,
        proc__self__cgroup="5:memory:/box\n",
        proc__self__mountinfo=VERSION_1.format("memory"),
        sys__fs__cgroup__memory__box__memory_DOT_limit_in_bytes="104857600\n",
        sys__fs__cgroup__memory__box__memory_DOT_usage_in_bytes="104850000\n",
        sys__fs__cgroup__memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
        sys__fs__cgroup__memory__memory_DOT_usage_in_bytes="1\n",
    )
    found = only(memory.group_memory(system))

    assert (found.level, found.found[:7]) == (Level.WARNING, "100 MiB")


def test_processes_in_a_small_group(tmp_path: Path) -> None:
    """The tightest limit is the one that is shown first."""
    found = {}
    for name, used in (("well", "1"), ("tight", "60"), ("full", "98")):
        system = machine(
            tmp_path / name,
            proc__self__cgroup="0::/box\n",
            proc__self__mountinfo=VERSION_2,
            proc__loadavg="0 0 0 1/300 1234",
            proc__sys__kernel__pid_max="4194304",
            sys__fs__cgroup__box__pids_DOT_max="1000" if name == "well" else "100",
            sys__fs__cgroup__box__pids_DOT_current=used,
        )
        found[name] = only(limits.processes(system))

    assert [each.level for each in found.values()] == [Level.OK, Level.WARNING, Level.PROBLEM]
    assert "pids.max 100" in found["full"].found
    assert "kernel.pid_max" in found["full"].found


@pytest.mark.parametrize(
    ("capabilities", "scope", "level"),
    [
        ("000001ffffffffff", "1", Level.OK),
        ("0000000000000000", "0", Level.OK),
        ("0000000000000000", "1", Level.NOTE),
        ("00000000a80425fb", "2", Level.NOTE),  # root in a container
    ],
)
def test_tracing(tmp_path: Path, capabilities: str, scope: str, level: Level) -> None:
    """Who may not trace is told how to see what processes wait for nevertheless."""
    system = machine(
        tmp_path,
        proc__self__status=f"Name:\tpython\nCapEff:\t{capabilities}\n",
        proc__sys__kernel__yama__ptrace_scope=scope,
    )

    assert only(kernel.tracing(system)).level is level


@pytest.mark.parametrize(
    ("pages", "level"), [("16384", Level.OK), ("0", Level.OK), ("64", Level.WARNING)]
)
def test_pipe_quota(tmp_path: Path, pages: str, level: Level) -> None:
    """Zero is no quota."""
    system = machine(tmp_path, proc__sys__fs__pipe_DASH_user_DASH_pages_DASH_soft=pages)

    assert only(limits.pipes(system)).level is level


def test_descriptors() -> None:
    """A low limit is a warning, one that is nearly used up a problem."""
    if sys.platform == "win32":
        pytest.skip("no limits there")
    import resource

    used = len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    levels = []
    try:
        for soft in (1024 + used, 512 + used, 10 + used):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
            levels.append(only(limits.descriptors(Machine())).level)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert levels == [Level.OK, Level.WARNING, Level.PROBLEM]


def test_cpus_of_a_quota(tmp_path: Path) -> None:
    """A quota below the machine is noted, as programs count the machine."""
    system = machine(
        tmp_path,
        proc__self__cgroup="0::/box\n",
        proc__self__mountinfo=VERSION_2,
        sys__fs__cgroup__box__cpu_DOT_max="50000 100000",
    )
    found = only(cpus(system))

    assert found.found.startswith("1 (cgroup: 0.5")
    assert (found.level is Level.NOTE) is ((os.cpu_count() or 1) > 1)


def test_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good one, one that cannot be used, and one too long for sockets."""
    good, long = Path("/tmp"), tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(good))
    assert only(temporary.temporary_directory(None)).level is Level.OK
    first, _ = temporary.temporary_directory("/nowhere")
    assert (first.level, "'/nowhere'" in first.found) == (Level.WARNING, True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert "Unix socket" in only(temporary.temporary_directory(str(long))).found


def test_no_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere to write is a problem."""

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert only(temporary.temporary_directory(None)).level is Level.PROBLEM


def test_threads_at_start(tmp_path: Path) -> None:
    """The kernel's list counts threads that Python does not know, too."""
    (tmp_path / "1").mkdir()
    assert only(python.threads(tmp_path)).level is Level.OK
    (tmp_path / "2").mkdir()
    found = only(python.threads(tmp_path))

    assert found.level is Level.WARNING
    assert "not made by Python" in found.found
    assert "forkserver" in found.advice


def test_python_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usual builds are well; what is special about others is said."""
    before = {each.level for each in python.build()}
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert Level.PROBLEM not in before
    assert any("freeze_support" in each.advice for each in python.build())


@pytest.mark.parametrize(("off", "level"), [(True, Level.NOTE), (False, Level.OK)])
def test_bytecode(monkeypatch: pytest.MonkeyPatch, off: bool, level: Level) -> None:
    """Children that compile everything are slow to start."""
    monkeypatch.setattr(sys, "dont_write_bytecode", off)

    assert only(python.bytecode()).level is level


def test_child_signal() -> None:
    """An ignored SIGCHLD, which is inherited, loses exit codes."""
    if sys.platform == "win32":
        pytest.skip("no such signal")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        ignored = only(python.child_signal())
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert ignored.level is Level.WARNING
    assert only(python.child_signal()).level is Level.OK


def test_a_plugin_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions that go together have one version."""
    assert {each.level for each in plugins.installed(registry())} == {Level.OK}
    monkeypatch.setattr("procession.__version__", "7.0.0")
    found = list(plugins.installed(registry()))

    assert {each.level for each in found} == {Level.PROBLEM}
    assert all("pip install --upgrade" in each.advice for each in found)


def test_children_are_really_started(method: str) -> None:
    """Each method starts a child that gets a message and sends it back."""
    transports = procession.get_all_transports()
    found = list(plugins.working([method], transports))

    assert [each.level for each in found] == [Level.OK] * len(transports)
    assert found[0].subject == f"child by {method} over {transports[0]}"


def test_a_child_that_fails(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it answered instead is said; nobody waits for ever."""
    monkeypatch.setattr(plugins, "_MESSAGE", [1, 2.0, (3,)])
    monkeypatch.setattr(plugins, "send_back", failing.hang_up)
    (found,) = plugins.working([method], procession.get_all_transports()[:1])

    assert found.level is Level.PROBLEM
    assert found.found == "answered 'nothing' and ended with exit code 3"


def test_a_check_that_fails_is_a_finding() -> None:
    """The other checks are made."""

    def broken() -> list[Finding]:
        raise ZeroDivisionError("nothing left")

    def fine() -> list[Finding]:
        return [Finding(Level.OK, "fine", "yes")]

    first, second = examine({"broken": broken, "fine": fine})

    assert (first.level, first.subject) == (Level.PROBLEM, "broken")
    assert "nothing left" in first.found
    assert second.level is Level.OK


def test_without_starting_anything() -> None:
    """The last check is the only one that starts processes."""
    assert set(checks(Machine())) - set(checks(Machine(), start=False)) == {"children"}


def test_sizes() -> None:
    """As people write them."""
    assert [size(each) for each in (0, 1023, 1024, 1536, 64 << 20)] == [
        "0 bytes",
        "1023 bytes",
        "1 KiB",
        "1.5 KiB",
        "64 MiB",
    ]
