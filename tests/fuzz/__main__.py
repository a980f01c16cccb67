"""Fuzz every target for a share of the time, two at once: `python -m tests.fuzz SECONDS [--target NAME] [--seed N]`.

Findings are written to .cache/fuzz. Exit code 1: there are some.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.corpus import make_corpus
from tests.fuzz.seeds import SEEDS, make_seeds
from tests.support.user import REPOSITORY

WEIGHTS = {"image": 5, "layer": 2}
"""The shares of targets with more code behind them than the others, which have 1."""
JOBS = 2


def main() -> int:
    """Fuzz, and return 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=600)
    parser.add_argument("--target", choices=SEEDS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    targets = options.target or list(SEEDS)
    driver = "atheris" if importlib.util.find_spec("atheris") else "seeded mutations; there is no atheris here"
    print(f"fuzzing {', '.join(targets)} for {options.seconds:.0f} s by {driver}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cosremaster-fuzz-") as folder, ThreadPoolExecutor(JOBS) as pool:
        shares = share_time(targets, options.seconds)
        codes = pool.map(lambda target: fuzz(target, shares[target], options.seed, Path(folder)), targets)
        return max(codes, default=0)


def share_time(targets: Iterable[str], seconds: float) -> dict[str, float]:
    """Return the seconds of each target, so that all together take ``seconds`` with :data:`JOBS` at once."""
    weights = {target: WEIGHTS.get(target, 1) for target in targets}
    return {
        target: JOBS * seconds * weight / max(sum(weights.values()), JOBS * weight)
        for target, weight in weights.items()
    }


def fuzz(target: str, seconds: float, seed: int, folder: Path) -> int:
    """Fuzz one target in a process of its own; return 1 if it has findings or ends otherwise than it should."""
    corpus = folder / target / "corpus"
    corpus.mkdir(parents=True)
    files = make_seeds(target, folder / target / "seeds") | make_corpus(target, folder / target / "bad")
    for name, data in files.items():
        (corpus / name).write_bytes(data)
    words = [sys.executable, "-m", "tests.fuzz.run", target, str(seconds), str(seed)]
    words += [str(REPOSITORY / ".cache/fuzz"), str(corpus)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, errors="replace", check=False)
    for line in done.stdout.splitlines():
        print(line, flush=True)
    if done.returncode not in (0, 1):
        print(f"{target}: ended with {done.returncode}\n{done.stderr[-2000:]}", flush=True)
    return 0 if done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
