"""The number of CPUs, from made-up control groups and from the real ones."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import procession
from procession._starting import available_cpus
from procession._starting.available_cpus import AvailableCpus, CpuLimit

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
Tree = Callable[..., list[float]]


@pytest.fixture
def quotas(tmp_path: Path) -> Tree:
    """Return the quotas, from the innermost group out, that a made-up machine has."""

    def quotas(groups: str, mounts: str, **files: str) -> list[float]:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        (tmp_path / "proc/self/mountinfo").write_text(mounts)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return [limit.cpus for limit in available_cpus._quotas(tmp_path)]

    return quotas


def test_version_2_nested(quotas: Tree) -> None:
    """A quota of a group above holds, too: a pod in a limited slice."""
    found = quotas(
        "0::/slice/pod/box\n",
        V2_MOUNT,
        **{
            "slice/cpu.max": "150000 100000\n",
            "slice/pod/cpu.max": "max 100000\n",
            "slice/pod/box/cpu.max": "400000 100000\n",
        },
    )

    assert [4.0, 1.5] == found


def test_version_2_in_a_namespace(quotas: Tree) -> None:
    """In a container of its own view the group is the root, and has a limit file."""
    assert [0.5] == quotas("0::/\n", V2_MOUNT, **{"cpu.max": "50000 100000\n"})


def test_version_2_outside_of_the_namespace(quotas: Tree) -> None:
    """A group beside the visible ones is written with dots; what is mounted counts."""
    assert [2.0] == quotas("0::/../other\n", V2_MOUNT, **{"cpu.max": "200000 100000\n"})


def test_version_2_mounted_from_within(quotas: Tree) -> None:
    """The host's path is in the list of groups, and its container's part is mounted."""
    mount = V2_MOUNT.replace(" / /sys", " /docker/abc /sys")

    assert [3.0] == quotas("0::/docker/abc\n", mount, **{"cpu.max": "300000 100000\n"})


def test_version_1(quotas: Tree) -> None:
    """The controller is mounted with others, and -1 is no quota."""
    found = quotas(
        "5:cpuset:/x\n4:cpu,cpuacct:/a/b\n1:name=systemd:/y\n",
        V1_MOUNT,
        **{
            "cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
        },
    )

    assert [2.5] == found


def test_both_versions(quotas: Tree) -> None:
    """Where both are mounted the controller is in one of them; each is looked at."""
    found = quotas(
        "4:cpu,cpuacct:/a\n0::/b\n",
        V1_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
        **{
            "cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n",
            "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n",
            "unified/b/cgroup.procs": "",
        },
    )

    assert [2.0] == found


def test_a_mount_point_with_a_space(quotas: Tree) -> None:
    """The kernel writes it in octal."""
    mount = V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/a\\040b ")

    assert [1.0] == quotas("0::/\n", mount, **{"a b/cpu.max": "100000 100000\n"})


def test_no_control_groups(tmp_path: Path) -> None:
    """A system without /proc has no quotas, and that is no error."""
    assert [] == list(available_cpus._quotas(tmp_path))


@pytest.mark.parametrize("text", ["", "rubbish", "max", "0 100000", "100000 0"])
def test_files_that_say_nothing(quotas: Tree, text: str) -> None:
    """A file that cannot be understood is no limit."""
    assert [] == quotas("0::/\n", V2_MOUNT, **{"cpu.max": text})


def limit(source: str, cpus: float, detail: str) -> CpuLimit:
    """A limit, in short."""
    return CpuLimit(source=source, cpus=cpus, detail=detail)


def decide(*limits: CpuLimit) -> AvailableCpus:
    """The answer from these limits."""
    return AvailableCpus(*available_cpus._decide(list(limits)))


MACHINE = limit("machine", 8, "processors online")


def test_the_smallest_decides_and_is_named_first() -> None:
    """Everything else is kept, to see what would be next."""
    found = decide(MACHINE, limit("affinity", 4, "here"), limit("cgroup", 1.5, "there"))

    assert 2 == found
    assert "cgroup: 1.5 (there); affinity: 4 (here); machine: 8 (processors online)" == (
        found.reason
    )


def test_a_part_of_a_cpu_is_one() -> None:
    """A pool of no workers would do nothing at all."""
    assert 1 == decide(MACHINE, limit("cgroup", 0.2, "there"))


def test_a_setting_outranks_the_machine() -> None:
    """Who sets it knows better, upwards as well."""
    setting = available_cpus._setting({"PYTHON_CPU_COUNT": "12"}, {})

    assert limit("setting", 12, "PYTHON_CPU_COUNT") == setting
    assert 12 == decide(MACHINE, setting)


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [
        ({"PYTHON_CPU_COUNT": "3"}, {"cpu_count": "5"}, 5),
        ({"PYTHON_CPU_COUNT": "3"}, {"cpu_count": "default"}, None),
        ({"PYTHON_CPU_COUNT": "default"}, {}, None),
        ({"PYTHON_CPU_COUNT": "many"}, {}, None),
        ({"PYTHON_CPU_COUNT": "0"}, {}, None),
        ({}, {"cpu_count": True}, None),
        ({}, {}, None),
    ],
)
def test_settings(environ: dict[str, str], options: dict[str, object], expected: object) -> None:
    """The option outranks the variable; what Python would refuse does not count."""
    found = available_cpus._setting(environ, options)

    assert expected == (None if found is None else found.cpus)


def test_it_is_a_number() -> None:
    """It goes wherever an int goes, prints like one, and keeps its reason when copied."""
    found = decide(MACHINE)
    copy = pickle.loads(pickle.dumps(found))

    assert range(8) == range(found)
    assert "8 8" == f"{found} {found!s}"
    assert 8 == found.count
    assert found.limits == copy.limits
    assert "machine" in repr(found)


def test_the_real_machine() -> None:
    """Never more than the affinity allows, never less than one."""
    found = procession.available_cpus()

    assert found >= 1
    if sys.platform == "linux" and found.limits[0].source != "setting":
        assert found <= len(os.sched_getaffinity(0))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has affinity")
def test_the_affinity_of_a_real_process() -> None:
    """The answer follows the process, and is not remembered from an earlier question."""
    program = (
        "import os, procession\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(procession.available_cpus())"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON_CPU_COUNT"}

    assert b"1\n" == subprocess.check_output([sys.executable, "-c", program], env=environ)
    program = "import procession; print(repr(procession.available_cpus()))"
    line = [sys.executable, "-X", "cpu_count=7", "-c", program]
    assert b"<7 CPUs; setting: 7 (-X cpu_count); " in subprocess.check_output(line)
