"""Measurements, interleaved in one run: `env` times the env against Gymnasium's, `updates` the update schemes."""
