"""Makes the Debian package of a release build, with dpkg-deb(1), of the same files as the wheel.

    deb.py RELEASE FOLDER [--quick] [VERSION ...]

RELEASE is cargo's folder with the build. Each VERSION, by default that of the crate, becomes a package in FOLDER. The paths are printed. A quick
one is not compressed.

It is not cargo-deb: that writes the scripts of units one by one, in an order that cannot be chosen, and takes minutes to build itself.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "wheel"))
import backend  # noqa: E402
import elf  # noqa: E402

# The packages of the libraries that may be linked. Their symbols but those of libc are old.
LIBRARIES = {"libc.so.6": "libc6", "libm.so.6": "libc6", "libgcc_s.so.1": "libgcc-s1"}
CONTROL = """\
Package: preforkd
Version: {version}
Architecture: {architecture}
Maintainer: The developers of preforkd <preforkd@preforkd.invalid>
Installed-Size: {size}
Depends: {depends}, init-system-helpers
Recommends: python3
Section: httpd
Priority: optional
Description: server for Django and other WSGI applications, and process manager
 preforkd binds sockets, starts worker processes that share them, and keeps the
 workers running. It serves WSGI applications over HTTP, static files, and sites
 with TLS and HTTP/2, and supervises programs in any language. A reload is a
 transaction that loses no request.
 .
 It is started when there is a configuration, /etc/preforkd/app.toml.
"""


def program(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def depends(files):
    """What the package needs of the system."""
    names, versions = set(), elf.newest_glibc(files)
    for path in files:
        libraries = {name for name in elf.needs(path)[0] if not name.startswith("ld-linux")}
        unknown = libraries - set(LIBRARIES)
        if unknown:
            sys.exit("deb: %s is linked with %s, of which no package is known (add it to LIBRARIES)" % (path, ", ".join(sorted(unknown))))
        names.update(LIBRARIES[name] for name in libraries)
    return ", ".join("%s (>= %d.%d)" % (name, *versions) if name == "libc6" else name for name in sorted(names))


def compress(path):
    """As the policy wants it: without a time, so that the same files make the same package."""
    with open(path, "rb") as file, open(path + ".gz", "wb") as out, gzip.GzipFile("", "wb", 9, out, 0) as packed:
        shutil.copyfileobj(file, packed)
    os.remove(path)


def unit(text, name):
    """A unit of conf/systemd, for the place where the package has the program. Without a configuration it starts nothing."""
    text = text.replace("/usr/local/bin/", "/usr/bin/")
    configuration = "%i.toml" if "@" in name else "app.toml"
    if name.endswith(".service"):
        text = re.sub(r"^(Description=.*)$", r"\1\nConditionPathExists=/etc/preforkd/" + configuration, text, count=1, flags=re.MULTILINE)
    return text


def lay(release, place):
    """The files of the package."""
    laid = os.path.join(place, "usr")
    backend.lay(release, laid)
    for folder in ("bin", "libexec/preforkd"):
        for name in os.listdir(os.path.join(laid, folder)):
            program("strip", "--strip-unneeded", os.path.join(laid, folder, name))
    os.renames(os.path.join(laid, "share/zsh/site-functions"), os.path.join(laid, "share/zsh/vendor-completions"))
    for folder, _, names in os.walk(os.path.join(laid, "share/man")):
        for name in names:
            compress(os.path.join(folder, name))
    documents = os.path.join(laid, "share/doc/preforkd")
    with open(os.path.join(documents, "copyright"), "w", encoding="utf-8") as file:
        file.write("preforkd is licensed under MIT or Apache-2.0, as you like.\n\n")
        with open(os.path.join(ROOT, "LICENSE-MIT"), encoding="utf-8") as licence:
            file.write(licence.read())
        file.write("\nThe Apache License 2.0 lies in /usr/share/common-licenses/Apache-2.0.\n\n")
        with open(os.path.join(documents, "licences.txt"), encoding="utf-8") as licences:
            file.write(licences.read())
    os.remove(os.path.join(documents, "licences.txt"))
    shutil.copy(os.path.join(ROOT, "CHANGES.md"), os.path.join(documents, "changelog"))
    compress(os.path.join(documents, "changelog"))
    units = os.path.join(laid, "lib/systemd/system")
    os.makedirs(units)
    for name in sorted(os.listdir(os.path.join(ROOT, "conf/systemd"))):
        with open(os.path.join(ROOT, "conf/systemd", name), encoding="utf-8") as file, open(os.path.join(units, name), "w", encoding="utf-8") as out:
            out.write(unit(file.read(), name))
    os.makedirs(os.path.join(place, "etc/preforkd"))


def control(place, version):
    """What dpkg reads: DEBIAN/."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
    linked = [path for path in files if re.search("/(bin|libexec)/", path)]
    size = sum(os.path.getsize(path) for path in files)
    sums = []
    for path in sorted(files):
        with open(path, "rb") as file:
            sums.append("%s  %s\n" % (hashlib.md5(file.read()).hexdigest(), os.path.relpath(path, place)))
    folder = os.path.join(place, "DEBIAN")
    os.mkdir(folder)
    fields = {"version": version, "architecture": program("dpkg", "--print-architecture"), "size": size // 1024, "depends": depends(linked)}
    for name, text in (("control", CONTROL.format(**fields)), ("md5sums", "".join(sums))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    for name in os.listdir(os.path.join(ROOT, "conf/debian")):
        shutil.copy(os.path.join(ROOT, "conf/debian", name), folder)
    # Whatever the umask of the one who builds it.
    for path, _, names in os.walk(place):
        os.chmod(path, 0o755)
        for name in names:
            file = os.path.join(path, name)
            os.chmod(file, 0o755 if os.access(file, os.X_OK) else 0o644)
    return fields


def make(release, folder, version, compression):
    """The path of a package."""
    with tempfile.TemporaryDirectory(prefix="preforkd-deb-") as place:
        lay(release, place)
        fields = control(place, version)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "preforkd_%s_%s.deb" % (version, fields["architecture"]))
        program("dpkg-deb", "--root-owner-group", "-Z" + compression, "--build", place, path)
    return path


def main(release, folder, *versions):
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as manifest:
        own = re.search(r'^version = "(.*)"', manifest.read(), re.MULTILINE)[1]
    wanted = [version for version in versions if version != "--quick"]
    for version in wanted or [own]:
        print(make(release, folder, version, "none" if "--quick" in versions else "xz"))


if __name__ == "__main__":
    main(*sys.argv[1:])
