"""The classroom exercise: `runs` does it, `figures` sums up, `answers`, `tables` and `plots` say what it showed."""
