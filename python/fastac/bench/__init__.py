"""Measurements: `env` times the env against Gymnasium's, `updates` the update schemes. Everything in one run, interleaved."""
