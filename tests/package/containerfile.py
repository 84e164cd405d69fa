"""Plays a Containerfile where no images are at hand: the steps of a stage run in a root directory that debootstrap(8) has made.

A stage that begins with an image of Rust runs in this checkout, which has the toolchain: its packages are not installed and nothing is copied, and
its absolute paths lie in a folder of the stage.
"""

import json
import os
import re
import shlex
import shutil
import subprocess

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
# The steps that say something about the image and do nothing.
SAYING = {"EXPOSE", "STOPSIGNAL"}


def steps(text):
    """The instructions of a file and the rest of their lines."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            name, rest = line.split(None, 1)
            yield name.upper(), rest.strip()


class Stage:
    """What is known after some steps."""

    def __init__(self, root, own):
        self.root, self.own = root, own
        self.folder, self.user, self.command = "/", "root", None
        self.environment = dict(ENVIRONMENT)

    def inside(self, path):
        return os.path.join(self.root, os.path.join(self.folder, path).lstrip("/"))


def chroot(stage, command, **variables):
    """The command line that runs a command in the root of a stage, as process 1 of its own."""
    assignments = ["%s=%s" % pair for pair in {**stage.environment, **variables}.items()]
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc=" + os.path.join(stage.root, "proc")]
    return [*enter, "chroot", "--userspec=" + stage.user, stage.root, "env", "-i", "-C", stage.folder, *assignments, *command]


def play(text, context, base, scratch, stages=None, **variables):
    """The last stage. `base` gives the root directory for an image by its name; `variables` are there for steps only."""
    stages = dict(stages or {})
    stage = None
    for name, rest in steps(text):
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            if image in stages:
                stage = stages[image]
            elif "/rust:" in image:
                place = os.path.join(scratch, "rust")
                os.makedirs(place)
                stage = Stage(place, True)
            else:
                stage = Stage(base(image), False)
            stages[alias or image] = stage
        elif name == "WORKDIR":
            stage.folder = os.path.join(stage.folder, rest)
            os.makedirs(stage.inside("."), exist_ok=True)
        elif name == "USER":
            stage.user = rest
        elif name == "ENV":
            stage.environment.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "CMD":
            stage.command = json.loads(rest)
        elif name == "COPY" and not stage.own:
            words = rest.split()
            source = context
            if words[0].startswith("--from="):
                source = stages[words.pop(0).removeprefix("--from=")].root
            *sources, target = words
            for one in sources:
                copy(os.path.join(source, one.lstrip("/")), stage.inside(target), target)
        elif name == "RUN":
            run(stage, rest, context, variables)
        elif name not in SAYING and not (name == "COPY" and stage.own):
            raise AssertionError("a step that cannot be played: %s %s" % (name, rest))
    return stage


def copy(source, target, written):
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy(source, os.path.join(target, "") if written.endswith(("/", ".")) else target)


def run(stage, line, context, variables):
    if stage.own:
        if line.startswith("apt-get "):
            return
        command, folder = ["sh", "-c", re.sub(r"=/", "=%s/" % stage.root, line)], context
    else:
        command, folder = chroot(stage, ["sh", "-c", line], **variables), None
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssertionError("RUN %s: status %d\n%s" % (line, done.returncode, done.stdout))
