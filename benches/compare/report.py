"""The results as Markdown, to paste into docs/PERFORMANCE.md."""


def markdown(results):
    out = ["# Side by side", "", f"`{results['command']}`", "", f"{results['machine']}; {results['date']}; median of {results['rounds']} rounds of {results['seconds']} s; "
            f"load before {results['load']:.1f}.", ""]
    out += [f"- {text}" for text in results["versions"].values()]
    out += [f"- not measured: {text}" for text in results.get("missing", [])]
    for work in results["work"]:
        out += ["", f"## {work['title']}", ""] + (_fixed(work) if work["kind"] == "rate" else _table(work))
    return "\n".join(out) + "\n"


def _table(work):
    peers = work["peers"]
    ratios = [name for name in ("nginx", "envoy") if name in peers]
    head = ["", "requests/s", "p50 ms", "p99 ms", "µs a request", "busy", "MiB"] + [f"µs ÷ {name}'s" for name in ratios]
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for name, result in peers.items():
        cells = [_name(name, result), f"{result['rps']:,.0f}", f"{result['p50_ms']:.2f}", f"{result['p99_ms']:.2f}",
                 f"{result['cpu_us']:.1f}", f"{result['busy']:.0%}", f"{result['memory_mib']:.1f}"]
        cells += [f"{result['cpu_us'] / max(peers[other]['cpu_us'], 0.001):.2f}" for other in ratios]
        lines.append(_row(cells))
    return lines + _errors(peers)


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
    return ["", f"\\* failed requests: {', '.join(bad)}"] if bad else []


def _name(name, result):
    return f"{name} \\*" if result["errors"] else name


def _row(cells):
    return f"| {' | '.join(cells)} |"
