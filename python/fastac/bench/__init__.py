"""Measurements, interleaved in one run: `env`, `train`, `solve`, `scaling` and `updates`, each a command of its own.

What trains, ours and its peers, does so in processes of its own (racer.py), started and spoken to in one way.
"""
