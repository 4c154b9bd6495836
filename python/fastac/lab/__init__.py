"""Asynchrony taken apart, reproducible to the last bit: `replay` plays a recorded run again; `player` plays virtual
workers, `staleness` and `stragglers` experiment with it on the processes of `crew`, and `real` has real workers do the
same by the clock; the rest sums up and shows."""
