"""``procession plugins``: what is installed, and what is selected by whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import procession


def offer(site: Path, distribution: str, group: str, entry: str, source: str) -> None:
    """Put an installed distribution with one plugin into *site*."""
    metadata = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
    )
    (metadata / "entry_points.txt").write_text(f"[procession.{group}]\n{entry}\n")
    module = entry.partition("=")[2].strip()
    (site / f"{module}.py").write_text(source)


ABSENT_HARDWARE = """
from procession.plugin import Transport, TransportFeatures, hookimpl

class Telepathy(Transport):
    name = "telepathy"
    features = TransportFeatures()

    @classmethod
    def unavailable(cls):
        return "nobody here can read minds"

    def pair(self, *, duplex=True):
        raise NotImplementedError

@hookimpl
def procession_transport():
    return Telepathy
"""


def row(output: str, name: str) -> list[str]:
    """Return the cells of the row of the plugin *name*."""
    found = re.search(rf"^(?:start method|transport) +{name} .*$", output, re.MULTILINE)
    assert found is not None, output
    return re.split(r" {2,}", found.group().strip())


def test_what_is_installed_is_listed(run: Any) -> None:
    """Every plugin has a row with its distribution and version."""
    result = run("plugins")

    assert (result.stderr, result.returncode) == ("", 0)
    for kind, names in (
        ("start method", procession.get_all_start_methods()),
        ("transport", procession.get_all_transports()),
    ):
        for name in names:
            cells = row(result.stdout, name)
            assert cells[:2] == [kind, name]
            assert cells[4] == "available"


def test_what_cannot_be_used_is_listed_with_the_reason(run: Any, tmp_path: Path) -> None:
    """Unavailable and broken are two things; each names the plugin and says why."""
    site = tmp_path / "site"
    offer(site, "mind-readers", "transports", "telepathy = telepathy_hooks", ABSENT_HARDWARE)
    offer(site, "wrecks", "start_methods", "wreck = wreck_hooks", "import no_such_module\n")
    result = run("plugins", PYTHONPATH=str(site))

    assert (result.stderr, result.returncode) == ("", 0)
    assert row(result.stdout, "telepathy")[2:] == ["mind-readers", "1.2", "unavailable"]
    assert row(result.stdout, "wreck")[2:] == ["wrecks", "1.2", "broken"]
    assert re.search(
        r"^unavailable: .*'telepathy'.*nobody here can read minds", result.stdout, re.M
    )
    assert re.search(r"^broken: .*'wreck'.*no_such_module", result.stdout, re.M)


def test_two_claimants_of_a_name_are_both_listed(run: Any, tmp_path: Path) -> None:
    """Whoever has to take one of them away must know both."""
    site = tmp_path / "site"
    for distribution in ("first-claim", "second-claim"):
        module = distribution.replace("-", "_")
        offer(site, distribution, "transports", f"disputed = {module}", "")
    result = run("plugins", PYTHONPATH=str(site))

    assert "first-claim" in result.stdout
    assert "second-claim" in result.stdout
    assert re.search(r"^broken: .*'disputed'", result.stdout, re.M)


def test_the_selection_is_shown_with_who_made_it(run: Any) -> None:
    """By default a default; with a variable, that variable."""
    name = procession.get_all_transports()[-1]
    by_default = run("plugins").stdout
    by_variable = run("plugins", PROCESSION_TRANSPORT=name).stdout

    assert re.search(r"selected start method: \w+  by default: ", by_default)
    assert re.search(r"selected transport: +\w+  by default: ", by_default)
    assert re.search(
        rf"selected transport: +{name}  by environment: PROCESSION_TRANSPORT", by_variable
    )


def test_a_selection_that_cannot_be_had_ends_with_a_line(run: Any) -> None:
    """The table is still shown: it is what helps to find the mistake."""
    result = run("plugins", PROCESSION_START_METHOD="sparn")

    assert row(result.stdout, procession.get_all_start_methods()[0])
    assert re.fullmatch(r"procession: .*'sparn'.*PROCESSION_START_METHOD.*\n", result.stderr)
    assert result.returncode == 2


def test_what_a_plugin_says_about_itself_is_shown(run: Any, tmp_path: Path) -> None:
    """Which of two implementations is in use is a plugin's to say, and the user's to see."""
    details = '    @classmethod\n    def details(cls):\n        return "both"\n\n'
    source = ABSENT_HARDWARE.replace('return "nobody here can read minds"', "return None")
    source = source.replace("    def pair(", details + "    def pair(")
    site = tmp_path / "site"
    offer(site, "mind-readers", "transports", "telepathy = telepathy_hooks", source)
    result = run("plugins", PYTHONPATH=str(site), PROCESSION_TRANSPORT="telepathy")

    assert (result.stderr, result.returncode) == ("", 0)
    assert "available (telepathy): both" in result.stdout


def test_what_locks_are_made_of(run: Any) -> None:
    """Which implementation of locks is used, and why that one."""
    result = run("plugins", PROCESSION_PRIMITIVE="python")

    assert "locks are made of:     python  because: PROCESSION_PRIMITIVE" in result.stdout


def test_what_leases_may_keep(run: Any) -> None:
    """How much, and who says so: the same as whoever makes a queue then."""
    by_default = run("plugins").stdout
    by_variable = run("plugins", PROCESSION_LEASE_BUDGET="268435456").stdout

    assert "leases may keep:       1073741824 bytes  by the default" in by_default
    assert "leases may keep:       268435456 bytes  by PROCESSION_LEASE_BUDGET" in by_variable


def test_a_broken_primitive_is_listed_and_not_used(run: Any, tmp_path: Path) -> None:
    """Locks go on being made of what works, and the list says why not of that one."""
    site = tmp_path / "site"
    offer(site, "locksmiths", "primitives", "brass = brass_hooks", "import no_such_module\n")
    result = run("plugins", PYTHONPATH=str(site))

    assert (result.stderr, result.returncode) == ("", 0)
    assert re.search(r"^primitive +brass +locksmiths +1.2 +broken", result.stdout, re.M)
    assert re.search(r"^locks are made of: +(python|ring) ", result.stdout, re.M)
