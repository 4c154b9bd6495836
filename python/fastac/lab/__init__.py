"""Asynchrony in virtual time, reproducible to the last bit: `player` plays virtual workers, `staleness` and
`stragglers` experiment with it on the processes of `crew`; `statistics`, `tables` and `plots` sum up and show."""
