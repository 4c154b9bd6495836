"""For all tests: Ctrl-C works, also where the shell started pytest in the background and had SIGINT ignored."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
