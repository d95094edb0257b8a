"""What the workers written in Python share; it runs in each engine's own environment.

    python WORKER.py MODEL THREADS                      prints {"version": ..., "head": ...}
    python WORKER.py MODEL THREADS COUNT:ID,ID,... ...  prints {"runs": [...]}, one for each prompt

A worker is a fresh process that prints one line of JSON. `COUNT:ID,ID,...` asks for COUNT tokens,
greedily and without stopping, after the prompt of these ids; a run is {"tokens": the new ids,
"first_s": seconds from prompt to first token, "last_s": to the last}. llamacpp_worker.cpp does the
same in C++.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable

Generate = Callable[[list[int], int], tuple[list[int], list[float]]]


def timed(tokens: Iterable[int]) -> tuple[list[int], list[float]]:
    """Tokens as they come, and seconds from the call to each."""
    start, ids, times = time.perf_counter(), [], []
    for token in tokens:
        times.append(time.perf_counter() - start)
        ids.append(token)
    return ids, times


def serve(
    about: Callable[[str], dict[str, str]],
    load: Callable[[str, int], Generate],
) -> None:
    """The whole worker. `load(model, threads)` gives generate(prompt, count) -> ids, times."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints is no answer
    model, threads, *asked = sys.argv[1:]
    if not asked:
        answer: dict[str, object] = dict(about(model))
    else:
        generate, runs = load(model, int(threads)), []
        for request in asked:
            count, _, prompt = request.partition(":")
            ids, times = generate([int(token) for token in prompt.split(",")], int(count))
            runs.append({"tokens": ids, "first_s": times[0], "last_s": times[-1]})
        answer = {"runs": runs}
    print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # taking an engine down is not measured, and not every one does it cleanly
