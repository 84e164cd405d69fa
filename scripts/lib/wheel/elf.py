"""What ELF files need of the system that runs them."""

import re


def needs(path):
    """The libraries that a file names, the versions of symbols that it needs of them, and whether it has a search path of its own."""
    # Not before the backend has asked for it.
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    libraries, versions, has_path = set(), set(), False
    with open(path, "rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, auxiliaries in section.iter_versions():
                    versions.update(one.name for one in auxiliaries)
            elif isinstance(section, DynamicSection):
                for tag in section.iter_tags():
                    if tag.entry.d_tag == "DT_NEEDED":
                        libraries.add(tag.needed)
                    has_path |= tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
    return libraries, versions, has_path


def newest_glibc(paths):
    """The newest version of glibc, as (major, minor), of which a symbol is needed by any of the files; None without glibc."""
    names = (name for path in paths for name in needs(path)[1])
    found = (re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", name) for name in names)
    return max(((int(one[1]), int(one[2])) for one in found if one), default=None)
