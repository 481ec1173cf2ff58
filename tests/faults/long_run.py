"""The long form: `./run faults [--target NAME] [--seed N] [--minutes M] [--faults N] [--only NAME]`.

Random faults from a seed, until the minutes or the faults are over; ends at the first broken promise.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent),
                str(Path(__file__).resolve().parent.parent / "servers")]

import faults_blame  # noqa: E402,F401 - fills the catalog
import faults_mongo  # noqa: E402,F401
import faults_mysql  # noqa: E402,F401
import faults_process  # noqa: E402,F401
from catalog import FAULTS, Stage  # noqa: E402
from servers import parent_death_signal  # noqa: E402
from world import World  # noqa: E402


def order(seed: int) -> "iter":
    """Every fault once in random order, then by weight; slow ones run only once."""
    rng = random.Random(seed)
    names = sorted(FAULTS)
    rng.shuffle(names)
    yield from names
    quick = [f for f in FAULTS.values() if not f.slow]
    while True:
        yield rng.choices(quick, [f.weight for f in quick])[0].name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--faults", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--target", default="mysql", help="the server that ./run has provided")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), metavar="NAME", help="may be repeated")
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end as well
    parent_death_signal(signal.SIGTERM)
    print(f"seed {args.seed}, at most {args.minutes:g} minutes", flush=True)
    started = time.monotonic()
    done = 0
    with World(args.seed) as world:
        stage = Stage(world)
        try:
            stage.checker.healed()
            for name in (n for n in order(args.seed) if not args.only or n in args.only):
                if done >= args.faults or time.monotonic() - started > args.minutes * 60:
                    break
                begun = time.monotonic()
                healed = stage.play(name)
                done += 1
                print(f"{done:4} {name:36} {time.monotonic() - begun:6.1f} s, healed after {healed:4.1f} s, "
                      f"{world.bank.count} events", flush=True)
        except BaseException as error:
            traceback.print_exc()
            print(f"{world.story()}\nBROKEN by fault {done + 1}: {type(error).__name__}: {str(error)[:2000]}\n"
                  f"again with: ./run faults --target {args.target} --seed {args.seed}", flush=True)
            return 1
        print(f"survived {done} faults, {world.bank.count} events and {world.bank.resent} sent again, seed {args.seed}, "
              f"{(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
