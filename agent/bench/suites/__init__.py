"""The suites: each reads or makes its tasks and knows their hidden checks. `registry.open_suite` opens one by name."""
