"""The licences of all crates that are linked into preforkd, from the files that come with the crates."""

import collections
import json
import os
import re
import subprocess

NAMES = re.compile(r"(licen[cs]e|copying|notice|unlicen[cs]e|copyright)([-._].*)?$", re.IGNORECASE)
# Sources of other projects lie in a crate with their own licences, at most so many folders deep.
DEPTH = 3


def linked(root, target):
    """The crates that the programs and the extension are linked with, as cargo describes them, without those of this repository."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    own = set(metadata["workspace_members"])
    seen, waiting = set(own), list(own)
    while waiting:
        for other in nodes[waiting.pop()]["deps"]:
            if any(kind["kind"] is None for kind in other["dep_kinds"]) and other["pkg"] not in seen:
                seen.add(other["pkg"])
                waiting.append(other["pkg"])
    packages = (package for package in metadata["packages"] if package["id"] in seen - own)
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def files(package):
    """The paths of its licences, from its folder on."""
    top = os.path.dirname(package["manifest_path"])
    found = set()
    if package["license_file"]:
        found.add(os.path.normpath(package["license_file"]))
    for folder, folders, names in os.walk(top):
        inside = os.path.relpath(folder, top)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        # Texts that its own tests need are not linked.
        folders[:] = [] if depth == DEPTH else sorted(set(folders) - {"tests", "test", "target", ".github"})
        is_text = lambda name: NAMES.match(name) and not name.endswith((".rs", ".py", ".c", ".h", ".go", ".toml", ".yml"))
        found.update(os.path.normpath(os.path.join(inside, name)) for name in names if is_text(name))
    return top, sorted(found)


def collect(root, target):
    """All licences as one text: for each of them the crates that it is of. Crates without a file of their own follow at the end, with what
    they say in their manifest."""
    texts, without = collections.defaultdict(list), []
    for package in linked(root, target):
        who = "%s %s (%s)" % (package["name"], package["version"], package["license"] or "see below")
        top, found = files(package)
        if not found:
            authors = ", ".join(package["authors"]) or package["repository"] or "unknown"
            without.append("%s, by %s" % (who, authors))
        for path in found:
            with open(os.path.join(top, path), encoding="utf-8", errors="replace") as file:
                text = "\n".join(line.rstrip() for line in file.read().strip().splitlines())
            texts[text].append("%s: %s" % (who, path))
    parts = ["preforkd is linked with these crates, under these licences, and with the standard library of Rust (MIT OR Apache-2.0)."]
    for text, crates in sorted(texts.items(), key=lambda item: item[1]):
        parts.append("\n".join(["=" * 78, *crates, "-" * 78, text]))
    if without:
        parts.append("\n".join(["=" * 78, "Crates that come without a file with their licence; its text stands above:", *without]))
    return "\n\n".join(parts) + "\n"
