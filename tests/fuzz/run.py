"""Fuzz one target for some seconds: `python -m tests.fuzz.run TARGET SECONDS SEED FOLDER`. Exit code 1: findings.

Each new finding is written to FOLDER as TARGET-HASH.bin, with a .txt that says what it is.
"""

import gc
import hashlib
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

try:
    import atheris
except ImportError:  # no wheel for this Python
    atheris = None

from tests.fuzz.mutate import mutate

START = time.monotonic()
if atheris is None:
    from tests.fuzz.targets import TARGETS, FindingError
else:
    with atheris.instrument_imports(include=["cosremaster"]):
        from tests.fuzz.targets import TARGETS, FindingError

Execute = Callable[[bytes], None]


class Recorder:
    """Runs a target, and writes each kind of finding once."""

    def __init__(self, target: str, work: Path, folder: Path) -> None:
        """Prepare the folders."""
        self.target, self.work, self.folder = target, work, folder
        self.run, self.limit = TARGETS[target]
        self.findings = Counter[str]()
        self.executions = 0
        work.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    def execute(self, data: bytes) -> None:
        """Run the target on ``data``."""
        self.executions += 1
        try:
            self.run(data, self.work)
        except FindingError as finding:
            self._record(data, str(finding))
        if self.executions % 100 == 0:
            gc.collect()

    def _record(self, data: bytes, text: str) -> None:
        """Write ``data`` if it shows something new; numbers in ``text`` make nothing new of it."""
        plain = re.sub(r"\d| of [a-z]+(?=: )|'[^']*'", "", text.replace(str(self.work), ""))
        kind = hashlib.sha256(plain.encode()).hexdigest()
        self.findings[kind] += 1
        if self.findings[kind] == 1:
            path = self.folder / f"{self.target}-{kind[:10]}"
            path.with_suffix(".bin").write_bytes(data)
            path.with_suffix(".txt").write_text(text + "\n")
            print(f"FOUND by {self.target}: {text} ({path}.bin)", flush=True)

    def summarize(self, driver: str, seconds: float) -> str:
        """Return a line about the run."""
        counts = f"{self.executions:,} executions, {len(self.findings)} findings"
        return f"{self.target}: {counts} in {seconds:.0f} s ({driver})"


def fuzz_plainly(recorder: Recorder, seeds: Sequence[bytes], seconds: float, seed: int) -> None:
    """Run mutations of the seeds, and now and then of their mutations, with no feedback."""
    chance, end, pool = random.Random(seed), time.monotonic() + seconds, list(seeds)
    while time.monotonic() < end:
        data = mutate(chance.choice(pool), recorder.limit, chance.getrandbits(32))
        recorder.execute(data)
        if chance.random() < 0.02 and len(pool) < 10 * len(seeds):
            pool.append(data)


def fuzz_guided(recorder: Recorder, corpus: Path, seconds: float, seed: int) -> NoReturn:
    """Run mutations that reach new code, with atheris, and end the process."""
    start = time.monotonic()

    def change(data: bytes, limit: int, number: int) -> bytes:
        """Return another file; one in eight changes is libFuzzer's own."""
        return bytes(atheris.Mutate(data, limit)) if number % 8 == 0 else mutate(data, limit, number)

    def execute(data: bytes) -> None:
        """Run the target, until the time is over."""
        recorder.execute(bytes(data))
        if time.monotonic() > start + seconds:
            print(recorder.summarize("atheris", seconds), flush=True)
            os._exit(1 if recorder.findings else 0)  # libFuzzer would go on

    options = [
        f"-artifact_prefix={recorder.folder}/",
        f"-max_len={recorder.limit}",
        f"-seed={seed}",
        "-verbosity=0",
        "-rss_limit_mb=3000",
        "-timeout=600",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options, "-len_control=0"], execute, custom_mutator=change)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def main(arguments: Sequence[str]) -> int:
    """Fuzz, and return 1 if there are findings."""
    target, seconds, seed = arguments[0], float(arguments[1]), int(arguments[2])
    folder, corpus = map(Path, arguments[3:5])
    work = corpus.parent / f"work-{target}"
    os.environ["XDG_CACHE_HOME"] = str(work.parent / f"cache-{target}")
    recorder = Recorder(target, work, folder)
    os.environ["TMPDIR"] = str(work)
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    for data in seeds:
        recorder.execute(data)
    seconds = max(seconds / 2, seconds - (time.monotonic() - START))  # the start counts
    if atheris is not None:
        fuzz_guided(recorder, corpus, seconds, seed)
    fuzz_plainly(recorder, seeds, seconds, seed)
    print(recorder.summarize("seeded mutations", seconds), flush=True)
    return 1 if recorder.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
