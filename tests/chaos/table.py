"""The results as people read them: line after line while they come, and a table in Markdown."""
from clients import VERDICTS

BAD = VERDICTS[1:]


def milliseconds(seconds):
    """A gap."""
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def settled(seconds):
    """A time until all was well again."""
    return "-" if seconds is None else f"{seconds:.2f} s"


def verdict(stage):
    """PASS, FAIL, or why not played."""
    return "skipped" if stage.skipped else "FAIL" if stage.misses else "PASS"


def head():
    """The titles."""
    return f"{'scenario':52}{'server':18}{'ok':>6}" + "".join(f"{name:>10}" for name in BAD) + (
        f"{'gap':>9}{'settled':>9}  verdict"
    )


def line(item, stage):
    """One scenario with one server."""
    counts = "".join(f"{stage.counts[name]:10}" for name in BAD)
    text = (
        f"{item.name:52}{stage.name:18}{stage.counts['ok']:6}{counts}{milliseconds(stage.gap):>9}"
        f"{settled(stage.settled):>9}  {verdict(stage)}"
    )
    remarks = [stage.skipped, *stage.misses, *(f"({note})" for note in stage.notes)]
    return text + " " + "; ".join(remark for remark in remarks if remark)


def markdown(results, about):
    """All of it: a short table with a cell for each server, then the counts."""
    servers = list(dict.fromkeys(stage.name for _, stage in results))
    items = list(dict.fromkeys(item for item, _ in results))
    found = {(item.name, stage.name): stage for item, stage in results}
    lines = ["| scenario | target | " + " | ".join(servers) + " |", "|---" * (len(servers) + 2) + "|"]
    for item in items:
        cells = [cell(found.get((item.name, name))) for name in servers]
        lines.append(f"| {item.name} | {item.target} | " + " | ".join(cells) + " |")
    lines += ["", about, "", "| scenario | server | ok | " + " | ".join(BAD) + " | longest gap | settled |",
              "|---|---|" + "--:|" * (len(BAD) + 3)]
    for item, stage in results:
        counts = " | ".join(str(stage.counts[name]) for name in BAD)
        lines.append(f"| {item.name} | {stage.name} | {stage.counts['ok']} | {counts} | "
                     f"{milliseconds(stage.gap)} | {settled(stage.settled)} |")
    return "\n".join(lines) + "\n"


def cell(stage):
    """One verdict in the short table."""
    if stage is None:
        return ""
    if stage.skipped:
        return f"not played: {stage.skipped}"
    words = [("missed: " + "; ".join(stage.misses)) if stage.misses else "yes", *stage.notes]
    return "; ".join(words).replace("|", "\\|")
