"""The reports of ``procession check``: a page for people, and XML for programs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree

from procession.testing.checking import FAILED, OUTCOMES, REFUSED, SKIPPED

if TYPE_CHECKING:
    from procession.testing.checking import Examination, Result

__all__ = ["junit", "markdown"]

# What XML cannot contain, in whatever way it is written.
_UNSPEAKABLE = re.compile("[^\\t\\n\\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(name: str, subject: str, examination: Examination) -> str:
    """Return the report on the plugin *name* as a page; *subject* says what it is, and of what."""
    lines = [f"# Conformance of `{name}`", "", subject + ".", ""]
    lines += [f"| subject | {' | '.join(OUTCOMES)} |", "| --- |" + " ---: |" * len(OUTCOMES)]
    for tested in dict.fromkeys(result.subject for result in examination.results):
        counts = (
            str(sum(each.subject == tested for each in examination.of(outcome)))
            for outcome in OUTCOMES
        )
        lines.append(f"| {tested} | {' | '.join(counts)} |")
    if examination.trouble:
        lines += ["", "## Not finished", "", _fenced(examination.trouble)]
    for outcome in (FAILED, *(each for each in OUTCOMES if each != FAILED)):
        results = examination.of(outcome)
        if results:
            lines += ["", f"## {outcome.capitalize()}"]
        for result in results:
            lines += ["", f"### {result.subject}: {result.name}", "", result.promise]
            if result.detail:
                lines += ["", _fenced(result.detail)]
    return "\n".join(lines) + "\n"


def _fenced(text: str) -> str:
    return f"~~~text\n{text.replace('~~~', '~ ~ ~')}\n~~~"


def junit(name: str, subject: str, examination: Examination) -> str:
    """Return the report on the plugin *name* in JUnit's XML; see `markdown`.

    What has ended the tests early is an error, also when it was in none of them.
    """
    results, trouble = examination.results, examination.trouble
    suite = Tree.Element(
        "testsuite",
        name=f"procession {name}",
        tests=str(len(results) + bool(trouble)),
        failures=str(len(examination.of(FAILED))),
        errors=str(int(bool(trouble))),
        skipped=str(len(examination.of(SKIPPED))),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    _add_property(Tree.SubElement(suite, "properties"), "subject", subject)
    for result in results:
        _add_result(suite, result)
    if trouble:
        case = Tree.SubElement(suite, "testcase", classname=name, name="all tests are run")
        _add_text(case, "error", trouble)
    everything = Tree.Element("testsuites")
    everything.append(suite)
    Tree.indent(everything)
    return Tree.tostring(everything, encoding="unicode", xml_declaration=True) + "\n"


def _add_result(suite: Tree.Element, result: Result) -> None:
    case = Tree.SubElement(
        suite,
        "testcase",
        classname=result.subject,
        name=result.name,
        time=f"{result.seconds:.3f}",
    )
    properties = Tree.SubElement(case, "properties")
    _add_property(properties, "promise", result.promise)
    if result.outcome == REFUSED:
        _add_property(properties, REFUSED, result.detail)
    elif result.outcome == FAILED:
        _add_text(case, "failure", result.detail)
    elif result.outcome == SKIPPED:
        _add_text(case, "skipped", result.detail)


def _add_property(properties: Tree.Element, name: str, value: str) -> None:
    Tree.SubElement(properties, "property", name=name, value=_speakable(value))


def _add_text(case: Tree.Element, tag: str, text: str) -> None:
    text = _speakable(text)
    Tree.SubElement(case, tag, message=text.partition("\n")[0]).text = text


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub(lambda found: ascii(found[0])[1:-1], text)
