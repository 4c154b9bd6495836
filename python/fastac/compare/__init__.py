"""A3C against A2C, with everything equal that can be: `experiment` runs them, `statistics` sums up, `tables` and `plots` show."""
