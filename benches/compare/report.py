"""The results as Markdown, to paste into docs/PERFORMANCE.md."""


def markdown(results):
    out = ["# Side by side", "", f"`{results['command']}`", "", f"{results['machine']}; {results['date']}; median of {results['rounds']} rounds of {results['seconds']} s; "
            f"load before {results['load']:.1f}.", ""]
    out += [f"- {text}" for text in results["versions"].values()]
    out += [f"- not measured: {text}" for text in results.get("missing", [])]
    tables = {"most": _table, "rate": _fixed, "idle": _idle}
    for work in results["work"]:
        out += ["", f"## {work['title']}", ""] + tables[work["kind"]](work)
    return "\n".join(out) + "\n"


def _table(work):
    peers, unit = work["peers"], work.get("unit", "request")
    ratios = [name for name in ("nginx", "envoy") if name in peers]
    head = ["", f"{unit}s/s", "p50 ms", "p99 ms", f"µs a {unit}", "busy", "MiB"] + [f"µs ÷ {name}'s" for name in ratios] + ["µs ÷ best other's"]
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for name, result in peers.items():
        cells = [_name(name, result), f"{result['rps']:,.0f}", f"{result['p50_ms']:.2f}", f"{result['p99_ms']:.2f}",
                 f"{result['cpu_us']:.1f}", f"{result['busy']:.0%}", f"{result['memory_mib']:.1f}"]
        cells += [_ratio(result["cpu_us"], peers[other]["cpu_us"]) for other in ratios]
        others = [peers[other]["cpu_us"] for other in peers if other != name]
        cells.append(_ratio(result["cpu_us"], min(others)) if others else "–")
        lines.append(_row(cells))
    return lines + _errors(peers)


def _idle(work):
    peers = work["peers"]
    head = ["", "KiB a connection", "MiB before", "MiB with them", "processor ms/s while idle"]
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for name, result in peers.items():
        lines.append(_row([_name(name, result), f"{result['kib']:.1f}", f"{result['before_mib']:.1f}",
                           f"{result['after_mib']:.1f}", f"{result['idle_ms']:.1f}"]))
    return lines + _errors(peers)


def _ratio(mine, other):
    return f"{mine / max(other, 0.001):.2f}"


def _fixed(work):
    peers = work["peers"]
    best = min(result["p99_ms"] for result in peers.values())
    lines = [f"{work['rate']:,.0f} requests a second.", "", _row(["", "p50 ms", "p99 ms", "÷ best", "µs a request", "reached"]),
             _row(["---"] + ["---:"] * 5)]
    for name, result in peers.items():
        lines.append(_row([_name(name, result), f"{result['p50_ms']:.3f}", f"{result['p99_ms']:.3f}",
                           f"{result['p99_ms'] / max(best, 0.001):.2f}", f"{result['cpu_us']:.1f}",
                           f"{result['rps'] / work['rate']:.0%}"]))
    return lines + _errors(peers)


def _errors(peers):
    bad = [f"{name} {result['errors']:.0f}" for name, result in peers.items() if result["errors"]]
    return ["", f"\\* failed: {', '.join(bad)}"] if bad else []


def _name(name, result):
    return f"{name} \\*" if result["errors"] else name


def _row(cells):
    return f"| {' | '.join(cells)} |"
