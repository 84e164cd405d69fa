"""The targets that are ratios of rates."""
import statistics

from .findings import at_least, told
from .rows import ROWS
from .servers import BARE, BASE
from .throughput import LIMIT, medians

# Hello world: how many times as fast.
HELLO = {"bjoern": 1.2, "granian": 1.8, "uWSGI": 3, BASE: 15}
# What the name alone does not say.
HOW = {"uWSGI": "uWSGI with http-socket, which closes each connection after one answer"}
SHARE = 97
LEVEL = 0.98  # level with: within what two runs differ by anyway
THREADS = 0.9
STATIC = 1.05  # small files
SATURATED = 95  # per cent of the client's core: more requests it could not have sent


def findings(results):
    """The ratios of the measured rates, with their targets."""
    rates, found = medians(results), []
    spent, busy = ({key: statistics.median(run[n] for run in runs) for key, runs in results.items()} for n in (2, 3))
    for row in ROWS:
        own = rates.get((row.key, "preforkd"))
        if own is None:
            continue
        peers = {name: rate for (key, name), rate in rates.items()
                 if key == row.key and name not in (LIMIT, BARE) and not name.startswith("preforkd")}
        if row.key == "hello":
            found += [at_least(f"{row.title}: preforkd / {HOW.get(name, name)}", own / peers[name], least)
                      for name, least in HELLO.items() if name in peers]
        elif row.key == "cpu":
            threads = rates.get((row.key, "preforkd threads=4"))
            if threads:
                found.append(at_least(f"{row.title}: threads=4 / threads=1", threads / own, THREADS))
        elif peers:
            best = max(peers, key=peers.get)
            least = STATIC if row.app == "static" and row.size < 1_000_000 else LEVEL
            found.append(at_least(f"{row.title}: preforkd / best peer ({best})", own / peers[best], least))
        if peers:
            # What one core could do if it were given whole: the same comparison on a machine that others use too.
            best = min(peers, key=lambda name: spent[row.key, name])
            title = f"{row.title}: processor time per request, {best} / preforkd"
            ratio = spent[row.key, best] / spent[row.key, "preforkd"]
            if best in HELLO and row.key == "hello" and busy[row.key, "preforkd"] > SATURATED:
                found.append(at_least(f"{title} (wrk had no time for more)", ratio, HELLO[best]))
            else:
                found.append(told(title, f"{ratio:.2f}"))
        if above := rates.get((row.key, LIMIT)):
            share = 100 * own / above
            title = f"{row.title}: preforkd's share of the limit, %"
            if row.key == "plain":
                found.append(at_least(title, share, SHARE, "{:.1f}"))
            else:
                found.append(told(title, f"{share:.1f}"))
        if bare := rates.get((row.key, BARE)):
            found.append(told(f"{row.title}: preforkd / {BARE}, which knows no HTTP", f"{own / bare:.2f}"))
    return found
