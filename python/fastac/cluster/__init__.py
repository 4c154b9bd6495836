"""Many machines: nodes, each with workers on a buffer of its own, and a server that they exchange parameters with.

Along the way of the data: node.py (A3C) and round.py (A2C) on each machine, courier.py between them, server.py and
shards.py, observer.py for the program that started it. Only actors.py knows Ray.
"""
