"""Runs under the sanitizers, as the child of boundary.py: lists of operations drawn and shrunk by hypothesis.

python boundary_driver.py CALLS SEED [isolated]
"""

from __future__ import annotations

import os
import resource
import sys

from boundary_calls import Caller
from boundary_crowd import Crowd
from boundary_envs import Envs
from boundary_sessions import Sessions
from boundary_values import Draw
from boundary_verbs import Verbs
from boundary_workers import Workers
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = 100  # in a round
MEMORY_BYTES = 64 << 20
ROOMS = {
    Envs: "make drop never_made step step step reset reset seed set_state set_state poke_state look copy make_streams "
    "draw functions",
    Sessions: "create create attach look forget never_made open open open close copies reap",
    Verbs: "initialize read submit submit submit push push settle submit_many log read_log statistics serve "
    "copy_record flags signal balance balance",
    Workers: "make never_made copies collect gradient run run look set_state act",
    Crowd: "one_session used_while_it_waits closed_while_used one_env forked",
}
OFTEN, SELDOM = 5, 2  # threads and forks take milliseconds
OPERATIONS = [
    (room.__name__, verb)
    for room, verbs in ROOMS.items()
    for verb in verbs.split()
    for _ in range(SELDOM if room is Crowd else OFTEN)
]


def play(call: Caller, operations: list[tuple[tuple[str, str], int, int]]) -> None:
    """One example: every operation some times, each time with arguments drawn from its number."""
    sessions = Sessions(call)
    rooms = {"Envs": Envs(call), "Sessions": sessions, "Verbs": Verbs(call, sessions)}
    rooms |= {"Workers": Workers(call), "Crowd": Crowd(call)}
    for (room, verb), times, number in operations:
        d = Draw(number)
        for _ in range(min(times, SELDOM) if room == "Crowd" else times):
            getattr(rooms[room], verb)(d)


def in_a_fork(call: Caller, operations: list[tuple[tuple[str, str], int, int]]) -> None:
    """The same where a crash ends no more than a child, so that hypothesis can shrink what leads to it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        play(call, operations)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"ended with {status}"


def main(calls: int, first: int, isolated: bool) -> None:
    # Regions larger than this are refused by the system, instead of taking the machine's memory.
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_BYTES, MEMORY_BYTES))
    call = Caller()
    operation = st.tuples(st.sampled_from(OPERATIONS), st.integers(1, 20), st.integers(0, 2**32 - 1))
    number = first
    while call.calls < calls:
        print(f"seed={number}", flush=True)

        @seed(number)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(operations=st.lists(operation, max_size=60))
        def example(operations: list[tuple[tuple[str, str], int, int]]) -> None:
            (in_a_fork if isolated else play)(call, operations)

        example()
        number += 1
        if isolated:
            return
    print(f"calls={call.calls} refused={call.refused}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), "isolated" in sys.argv[3:])
