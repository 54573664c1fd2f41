"""The batch window: what it saves and what it costs.

Open loop: requests are due at random times, whatever becomes of those before,
on one worker with a processor of its own.  CPU time is that of the worker's
thread, in nanoseconds (schedstat): the clock ticks of /proc/PID/stat are too
coarse for a thousand requests.  Rounds are interleaved over the windows.
"""
import json
import os
import statistics
import subprocess

import bench_process as proc
from bench_process import Unavailable

RATES = (1000, 5000, 10000, 20000, 50000)
WINDOWS = (0, 50, 100, 200, 500)
CONNECTIONS = 64
BACKENDS = ("io_uring", "epoll")
TARGET = "/"


def _cpu_ns(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def _worker(server):
    for pid in server.pids():
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            if "worker" in file.read():
                return [pid]
    raise Unavailable("no worker")


def _once(bench, server, rate, number):
    options = bench.options
    command = [bench.built("bench/load"), f"--port={server.port}",
               f"--connections={CONNECTIONS}", f"--seed={number + 1}",
               f"--seconds={options.seconds}", f"--warmup={options.warmup}",
               f"--rate={rate}", f"--target={TARGET}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii",
                          preexec_fn=proc.pinned(proc.LOAD_CPUS)) as load:
        first = load.stdout.readline()
        pids = _worker(server)
        before = _cpu_ns(pids)
        text = load.stdout.readline()
        after = _cpu_ns(pids)
    if first != "measuring\n" or not text:
        raise Unavailable(f"the generator failed: {server.last_words()}")
    seen = json.loads(text)
    return {"cpu_us": (after - before) / 1000 / max(1, seen["requests"]),
            "rps": seen["requests"] / seen["seconds"],
            "p50_us": seen["latency_us"]["p50"],
            "p99_us": seen["latency_us"]["p99"],
            "errors": seen["errors"]["total"]}


def _median(rounds):
    return {name: statistics.median(one[name] for one in rounds)
            for name in rounds[0]}


def window(bench):
    """CPU per request against latency, by load, back end and window."""
    points = []
    for backend in BACKENDS:
        found = {}
        for number in range(bench.options.rounds):
            for us in WINDOWS:
                with bench.booksd(backend, {"batch_window": us}) as server:
                    for rate in RATES:
                        found.setdefault((us, rate), []).append(
                            _once(bench, server, rate, number))
        points += [{"backend": backend, "window_us": us, "rate": rate,
                    **_median(rounds)}
                   for (us, rate), rounds in sorted(found.items())]
    return {"title": f"window: GET {TARGET}, open loop, {CONNECTIONS} "
                     "connections, one worker",
            "rows": [], "bars": [], "counted": True, "points": points,
            "notes": [_line(point) for point in points]}


def _line(point):
    return ("{backend:8} {rate:6,d}/s window {window_us:3d}: {cpu_us:6.2f} us "
            "CPU, p50 {p50_us:7.1f} us, p99 {p99_us:7.1f} us, {rps:,.0f}/s"
            .format(**point))


# ---- the picture

_WIDTH, _HEIGHT, _LEFT, _TOP = 860, 620, 60, 60
_PANEL_W, _PANEL_H, _GAP_X, _GAP_Y = 340, 210, 80, 70
_COLOURS = ("#333333", "#0072b2", "#009e73", "#e69f00", "#d55e00")


class _Panel:
    """One diagram: loads from left to right, a line for each window."""

    def __init__(self, column, row, title, most):
        self.left = _LEFT + column * (_PANEL_W + _GAP_X)
        self.bottom = _TOP + row * (_PANEL_H + _GAP_Y) + _PANEL_H
        self.most = most
        self.parts = [_text(self.left, self.bottom - _PANEL_H - 12, title,
                            weight="bold")]
        for i in range(5):
            y = self.y(most * i / 4)
            self.parts.append(
                f'<line x1="{self.left}" x2="{self.left + _PANEL_W}" '
                f'y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>' +
                _text(self.left - 6, y + 4, f"{most * i / 4:g}", "end"))
        for i, rate in enumerate(RATES):
            self.parts.append(_text(self.x(i), self.bottom + 18,
                                    f"{rate // 1000}k/s", "middle"))

    def x(self, i):
        return self.left + _PANEL_W * (i + .5) / len(RATES)

    def y(self, value):
        return self.bottom - _PANEL_H * min(value, self.most) / self.most

    def line(self, values, colour, dash=""):
        spots = " ".join(f"{self.x(i):.1f},{self.y(value):.1f}"
                         for i, value in enumerate(values))
        self.parts.append(f'<polyline points="{spots}" fill="none" '
                          f'stroke="{colour}" stroke-width="2"{dash}/>')
        self.parts += [f'<circle cx="{self.x(i):.1f}" '
                       f'cy="{self.y(value):.1f}" r="3" fill="{colour}"/>'
                       for i, value in enumerate(values)]


def _text(x, y, text, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{text}</text>')


def _round_up(value):
    step = 10 ** (len(str(int(value))) - 1)
    return (int(value / step) + 1) * step


def draw(points, path):
    """docs/batching.svg from the points of a run."""
    parts = []
    for column, backend in enumerate(BACKENDS):
        mine = [one for one in points if one["backend"] == backend]

        def of(us, name, mine=mine):
            return [one[name] for rate in RATES for one in mine
                    if one["window_us"] == us and one["rate"] == rate]
        panels = [
            _Panel(column, 0, f"{backend}: CPU per request, microseconds",
                   _round_up(max(one["cpu_us"] for one in points))),
            _Panel(column, 1, f"{backend}: p50 and p99 (dashed), microseconds",
                   _round_up(sorted(one["p99_us"] for one in points)
                             [len(points) * 9 // 10]))]
        for us, colour in zip(WINDOWS, _COLOURS):
            panels[0].line(of(us, "cpu_us"), colour)
            panels[1].line(of(us, "p50_us"), colour)
            panels[1].line(of(us, "p99_us"), colour,
                           ' stroke-dasharray="5 4"')
        parts += [part for panel in panels for part in panel.parts]
    for i, (us, colour) in enumerate(zip(WINDOWS, _COLOURS)):
        x = _LEFT + i * 150
        parts.append(f'<rect x="{x}" y="16" width="14" height="14" '
                     f'fill="{colour}"/>' + _text(
                         x + 20, 28, f"batch_window = {us}"))
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} '
            f'{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>\n' +
            "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    import sys
    with open(sys.argv[1], encoding="utf-8") as source:
        draw(json.load(source)["scenarios"]["window"]["points"], sys.argv[2])
