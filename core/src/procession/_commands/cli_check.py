"""``procession check``: whether an installed plugin keeps the contracts."""

from __future__ import annotations

import os
import platform
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import procession
from procession._choosing.registry import NOUNS
from procession._choosing.selection import registry

if TYPE_CHECKING:
    from procession._choosing.registry import Kind, Registry
    from procession.testing.checking import Examination, Order, Result

__all__ = ["check"]

_IT_FAILED: Final = 1
_PAIRED: Final[tuple[Kind, ...]] = ("start_method", "transport")
_CHECKED: Final[tuple[Kind, ...]] = (*_PAIRED, "primitive", "serializer")
_NEEDED: Final = ("pytest", "pytest_timeout")
_STYLES: Final = {"passed": "green", "refused as declared": "cyan", "failed": "red"}


@click.command
@click.argument("name")
@click.option(
    "--with",
    "others",
    metavar="OTHER",
    multiple=True,
    help="The start method or transport to pair it with; without, every one there is.",
)
@click.option(
    "--only", metavar="WORDS", default="", help="Only promises whose names match, as pytest's -k."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a report: FILE.xml for JUnit's XML, FILE.md for Markdown.",
    metavar="FILE",
)
def check(name: str, others: tuple[str, ...], only: str, report: Path | None) -> int:
    """Run the conformance kit on the start method, transport, primitive or serializer NAME.

    It needs the extra 'testing'. The exit status is 1 when a promise was not kept.
    """
    _check_kit()
    _check_report(report)
    kinds = _kinds(registry(), name)
    order = _order(registry(), name, kinds, others, only)
    examination = _run(order)
    if examination.refusal:
        raise click.UsageError(examination.refusal)
    if report is not None:
        _write(report, order, examination)
    return _conclude(order, examination)


def _check_kit() -> None:
    """Refuse what cannot be run here, or is not meant so, before anything is run."""
    if sys.platform != "linux":
        raise click.UsageError(f"the conformance kit looks into /proc, which {sys.platform} lacks")
    missing = [module for module in _NEEDED if find_spec(module) is None]
    if missing:
        raise click.UsageError(
            f"the conformance kit needs the extra 'testing' ({', '.join(missing)} not installed): "
            'pip install "procession[testing]"'
        )
    from procession.testing.killing import chosen_kills, chosen_seed

    chosen_kills(0)
    chosen_seed()


def _check_report(report: Path | None) -> None:
    if report is None:
        return
    if report.suffix not in (".xml", ".md"):
        raise click.UsageError(f"{report}: a report is FILE.xml (JUnit) or FILE.md (Markdown)")
    if not os.access(report.absolute().parent, os.W_OK):
        raise click.UsageError(f"{report}: no such directory, or nothing may be written there")


def _kinds(known: Registry, name: str) -> list[Kind]:
    """Return what *name* is, of what the kit has suites for."""
    kinds = [kind for kind in _CHECKED if name in known.names(kind)]
    if kinds:
        return kinds
    names = {kind: known.names(kind) for kind in _CHECKED}
    everything = sorted({each for found in names.values() for each in found})
    near = get_close_matches(name.lower(), everything, n=1)
    raise click.UsageError(
        f"there is no start method, transport, primitive or serializer {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else "")
        + "; installed: "
        + "; ".join(f"{NOUNS[kind]}s {', '.join(names[kind]) or 'none'}" for kind in _CHECKED)
    )


def _order(
    known: Registry,
    name: str,
    kinds: list[Kind],
    others: tuple[str, ...],
    only: str,
) -> Order:
    from procession.testing.checking import Order

    # It is not loaded here itself: it might end this process.
    usable = {
        kind: [
            each for each in known.names(kind) if each == name or known.problem(kind, each) is None
        ]
        for kind in _PAIRED
    }
    pairs = []
    if "start_method" in kinds:
        pairs += [(name, other) for other in usable["transport"]]
    if "transport" in kinds:
        pairs += [(other, name) for other in usable["start_method"]]
    partners = {each for pair in pairs for each in pair} - {name}
    for other in others:
        if other not in partners:
            raise click.UsageError(
                f"there is nothing {other!r} to pair {name!r} with; "
                f"there is: {', '.join(sorted(partners)) or 'nothing'}"
            )
    chosen = [pair for pair in pairs if not others or set(pair) & set(others)]
    return Order(name, kinds, chosen, only)


def _run(order: Order) -> Examination:
    """Run the kit, and show how it goes: failures at once, the others as a count."""
    from procession.testing.checking import FAILED, Examination, examine

    examination = Examination()
    click.echo(_subject(order))
    subject = ""
    for result in examine(order, examination):
        if result.subject != subject:
            if subject:
                click.echo(_counts(subject, examination))
            subject = result.subject
        if result.outcome == FAILED:
            click.echo(_failure(result))
    if subject:
        click.echo(_counts(subject, examination))
    return examination


def _subject(order: Order) -> str:
    kinds = " and ".join(NOUNS[kind] for kind in _CHECKED if kind in order.kinds)
    plugins = {
        f"{claimant.distribution} {claimant.version}"
        for kind in _CHECKED
        for plugin in registry().installed(kind)
        if plugin.name == order.name
        for claimant in plugin.claimants
    }
    return (
        f"{kinds} {order.name!r} ({', '.join(sorted(plugins))}), procession "
        f"{procession.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}"
    )


def _counts(subject: str, examination: Examination) -> str:
    from procession.testing.checking import OUTCOMES

    parts = []
    for outcome in OUTCOMES:
        count = sum(each.subject == subject for each in examination.of(outcome))
        if count:
            parts.append(click.style(f"{count} {outcome}", fg=_STYLES.get(outcome)))
    return f"{subject}: {', '.join(parts)}"


def _failure(result: Result) -> str:
    head = click.style("failed", fg="red", bold=True)
    text = f"{head}: {result.subject}: {result.name}\n{result.promise}\n{result.detail}"
    return "\n    ".join(text.splitlines())


def _conclude(order: Order, examination: Examination) -> int:
    """Say what came of it all, and return the exit status."""
    from procession.testing.checking import FAILED, REFUSED, SKIPPED

    for word, outcome in (("refused, as is declared", REFUSED), ("not tested", SKIPPED)):
        reasons = sorted({result.detail for result in examination.of(outcome)})
        for reason in reasons:
            click.echo(f"{word}: {reason}")
    if not order.pairs and set(order.kinds) & set(_PAIRED):
        other = "transport" if "start_method" in order.kinds else "start method"
        click.echo(f"not tested: pairs, since no {other} is installed that could be paired with it")
    if examination.trouble:
        click.echo(click.style("failed", fg="red", bold=True) + f": {examination.trouble}")
        return _IT_FAILED
    if not examination.results:
        raise click.UsageError(f"no promise matches {order.only!r}")
    failed = len(examination.of(FAILED))
    kept = len(examination.results) - failed - len(examination.of(SKIPPED))
    click.echo(f"{order.name}: {kept} promises kept, {failed} not kept")
    return _IT_FAILED if failed else 0


def _write(report: Path, order: Order, examination: Examination) -> None:
    from procession.testing.reporting import junit, markdown

    as_text = junit if report.suffix == ".xml" else markdown
    report.write_text(as_text(order.name, _subject(order), examination), encoding="utf-8")
