"""Seconds of what runs inside."""

import time


class Stopwatch:
    """`with Stopwatch() as watch: ...` then `watch.seconds` (wall clock)."""

    seconds = 0.0

    def __enter__(self):
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._start
