"""A3C against A2C, all else equal: `experiment` runs them, `statistics` sums up, `tables` and `plots` show."""
