"""Rounds, rows and bars of a run.

Rounds are interleaved (A B C A B C ...), so that a slow minute of the machine
falls on all servers, and a ratio is taken within a round before the median.
"""
import statistics

from bench_process import Unavailable

BUSY_MIN = 0.8  # of its processor, or a server was not saturated


def new_row(key, label):
    return {"server": key, "label": label, "available": True, "why": None,
            "rounds": [], "median": None}


def interleave(rounds, entries):
    """entries: (row, function of the round's number); fills the rows.  One
    that fails is left out from then on and says why."""
    for number in range(rounds):
        for row, measure in entries:
            if not row["available"]:
                continue
            try:
                row["rounds"].append(measure(number))
            except Unavailable as why:
                row.update(available=False, why=str(why), rounds=[])
    for row, _ in entries:
        if row["rounds"]:
            row["median"] = {
                name: statistics.median(values) if None not in values else None
                for name in row["rounds"][0]
                for values in [[one[name] for one in row["rounds"]]]}
    return [row for row, _ in entries]


def row_of(rows, key):
    """The row when it was measured, else None."""
    return next((row for row in rows if row["server"] == key and
                 row["median"]), None)


def ratio(row, base, name):
    """The median of the ratios within each round, or None."""
    if row is None or base is None:
        return None
    pairs = [(one[name], other[name])
             for one, other in zip(row["rounds"], base["rounds"])]
    if not pairs or any(not other for _, other in pairs):
        return None
    return statistics.median(one / other for one, other in pairs)


def bar(name, value, limit, sense, unit=""):
    met = None if value is None else (
        value <= limit if sense == "at most" else value >= limit)
    return {"name": name, "value": value, "limit": limit, "sense": sense,
            "unit": unit, "met": met}
