"""The suites of the conformance kit; `procession.testing` has them by name."""
