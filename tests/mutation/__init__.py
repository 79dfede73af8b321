"""`make mutate`: break the mathematics one operator, constant or index at a time, and see that a test notices.

`operators` and `mutants` make the faulty versions with Cosmic Ray's operators and a few of our own, `judge` runs the
tests on each in a copy of the checkout, `report` writes `result.json` and `table.md`. What is mutated and which tests
judge stands in `settings.toml`; mutants that cannot change a result are declared in `equivalent.toml`.
"""
