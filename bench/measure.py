"""The main module of one measurement: `python measure.py SUBJECT CASE CONTENDER [quick]`.

Keep this module light, with no import at the top. It is `__main__` for the library that is
measured, so every child of `spawn` (and every fork server) imports it again: what is imported
here would be paid by all contenders in every start and hide the difference between them. All
else is imported inside `main`, which children do not run.
"""


def main() -> None:
    """Measure once and print the figures as JSON, the last line of standard output."""
    import json
    import sys

    from contenders import Contender
    from subject import Effort
    from subjects import load

    subject, case, contender, *options = sys.argv[1:]
    effort = Effort(quick="quick" in options)
    figures = load(subject).case(case).measure(Contender.from_text(contender), effort)
    print(json.dumps(dict(figures)), flush=True)


if __name__ == "__main__":
    main()
