"""Figures beside their targets: PASS, BEHIND, or no target."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One figure; `reached` is None if it has no target."""

    title: str
    value: str
    target: str = ""
    reached: bool | None = None


def at_most(title, value, most, form="{:.2f}"):
    """A figure that must not be larger."""
    return Finding(title, form.format(value), "at most " + form.format(most), value <= most)


def at_least(title, value, least, form="{:.2f}"):
    """A figure that must not be smaller."""
    return Finding(title, form.format(value), "at least " + form.format(least), value >= least)


def told(title, value):
    """A figure without a target."""
    return Finding(title, value)


def show(title, findings):
    """A table of them."""
    if not findings:
        return
    print(f"\n{title}\n\n| what | measured | target | |\n|---|---:|---:|---|")
    for found in findings:
        verdict = "" if found.reached is None else "PASS" if found.reached else "BEHIND"
        print(f"| {found.title} | {found.value} | {found.target} | {verdict} |", flush=True)
