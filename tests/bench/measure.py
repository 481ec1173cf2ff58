"""Measures what a process costs, and prints the figures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Sequence

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVERS = {"mongod": int(os.environ.get("MONGO_PID", 0)), "mysqld": int(os.environ.get("MYSQL_PID", 0))}


class BenchError(Exception):
    pass


def cpu_s(pid: int) -> float:
    """CPU seconds of a running process, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    """The peak memory of the process; 0 if it is exiting. (ru_maxrss would count the parent's before exec.)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0


def machine_cpu_s() -> float:
    """CPU seconds used by all processes of the machine, and those that the host kept for others."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


class Meter:
    """CPU seconds of processes from now on."""

    def __init__(self, **pids: int):
        self.pids = {**SERVERS, **pids}
        self.start = time.monotonic()
        self.machine_before = machine_cpu_s()
        self.before = {name: cpu_s(pid) for name, pid in self.pids.items()}

    def read(self) -> dict[str, float]:
        return {name: cpu_s(pid) - self.before[name] for name, pid in self.pids.items()}

    def others(self, ours: float) -> float:
        """Cores used by unrelated processes meanwhile: how disturbed the figures are."""
        return max(0.0, machine_cpu_s() - self.machine_before - ours) / self.seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


@dataclass
class Cost:
    """CPU time of a program that ran to its end, and of the servers during it."""

    seconds: float
    peak_mb: float
    cpu_s: dict[str, float]  # "own", "mongod", "mysqld"
    others: float  # cores that everything else on the machine used
    stdout: str

    @classmethod
    def median(cls, costs: Sequence["Cost"]) -> "Cost":
        cpu_s = {name: median(c.cpu_s[name] for c in costs) for name in costs[0].cpu_s}
        return cls(median(c.seconds for c in costs), median(c.peak_mb for c in costs), cpu_s,
                   median(c.others for c in costs), "")

    def cpu_us(self, events: int) -> float:
        """All three together, per event: less affected by other load on the machine than the elapsed time."""
        return sum(self.cpu_s.values()) * 1e6 / events


def run(*argv: str | Path, **variables: str) -> str:
    """The output of a program, which must succeed."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, **variables})
    if done.returncode != 0:
        raise failure(argv, done.returncode, done.stderr)
    return done.stdout


def measure(*argv: str | Path, log: Path, status: int = 0) -> Cost:
    """The cost of a program, which must end with that status."""
    meter, peak = Meter(), 0.0
    with log.open("w+b") as stderr, log.with_suffix(".out").open("w+b") as stdout:
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        try:
            while True:
                peak = max(peak, peak_mb(process.pid))
                pid, waited, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(0.02)
        except BaseException:
            process.kill()
            process.wait()
            raise
    cpu = {"own": usage.ru_utime + usage.ru_stime, **meter.read()}
    cost = Cost(meter.seconds, peak, cpu, meter.others(sum(cpu.values())), log.with_suffix(".out").read_text())
    process.returncode = os.waitstatus_to_exitcode(waited)
    if process.returncode != status:
        raise failure(argv, process.returncode, log.read_text(errors="replace"))
    return cost


def failure(argv: Sequence[str | Path], status: int, stderr: str) -> BenchError:
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    return BenchError(f"{Path(argv[0]).name} {argv[1]} ended with status {status}: {last}")


def progress(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The first column is text, the others are figures."""
    lines = [head, *rows]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    print(f"\n{title}")
    for line in lines:
        cells = [str(cell).rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  " + "  ".join([str(line[0]).ljust(widths[0]), *cells]).rstrip())
