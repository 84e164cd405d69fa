# Run by a worker as `python -c`: loads the extension module that PREFORKD_EXTENSION names and calls it. With the argument `look` it only says
# which interpreter this is.
# Any Python must be able to read it, as far as to say that it is too old.
import os
import sys


def unfit():
    """Why this interpreter cannot load the extension; None if it can."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    implementation = sys.implementation.name if hasattr(sys, "implementation") else "python"
    if sys.version_info < (3, 10):
        why = "is Python " + version
    elif implementation != "cpython":
        why = "is " + implementation + " " + version
    elif "t" in getattr(sys, "abiflags", ""):
        why = "is a free-threaded build of Python " + version
    else:
        return None
    return "python: %s %s, and preforkd needs CPython 3.10 or later with the global interpreter lock (write the path of another one: python = \"PATH\")" % (sys.executable, why)


def patient(module):
    """Standard output and error that write each line when it is whole, also when several threads write, and
    for which a frozen log reader, or a full disk, does not stop the application."""
    import io

    class Stream(io.FileIO):
        def write(self, data):
            return module.say(self.fileno(), bytes(data))

        def flush(self):
            super().flush()
            module.say_begun(self.fileno())

    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is None or old.isatty():
            continue
        old.flush()
        raw = Stream(number, "wb", closefd=False)
        raw.name = old.name
        # Lines are put together below it, where each thread has its own.
        new = io.TextIOWrapper(raw, old.encoding, old.errors, write_through=True)
        new.mode = "w"
        setattr(sys, name, new)
        setattr(sys, "__%s__" % name, new)


def show_levels(module):
    """Under the journal, lines that `logging` writes have the priority of their record."""
    if "JOURNAL_STREAM" not in os.environ:
        return
    import functools
    import logging

    emit = logging.StreamHandler.emit

    @functools.wraps(emit)
    def emit_with_level(self, record):
        before = module.level(max(0, record.levelno))
        try:
            emit(self, record)
        finally:
            module.level(before)

    logging.StreamHandler.emit = emit_with_level


def mismatch(extension, master, path, program):
    """Why an extension that speaks this version of the worker contract cannot work for this master; None if it can."""
    if str(extension) == master:
        return None
    extension, master = ("an older version, if any" if one is None else "version %s" % one for one in (extension, master))
    return (
        "could not start a worker with the extension %s: it speaks %s of the worker contract, but the master%s speaks "
        "%s (install both from the same release, then restart preforkd)" % (path, extension, program and " " + program, master)
    )


def run():
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    # `python -c` puts '' first, which follows every chdir of the application; `python -P` puts nothing.
    here = os.getcwd()
    if sys.path[:1] == [""]:
        sys.path[0] = here
    elif sys.path[:1] != [here]:
        sys.path.insert(0, here)

    path = os.environ["PREFORKD_EXTENSION"]
    loader = ExtensionFileLoader("_preforkd", path)
    spec = spec_from_file_location("_preforkd", path, loader=loader)
    module = module_from_spec(spec)
    sys.modules["_preforkd"] = module
    loader.exec_module(module)
    # An extension that is older than this text does not compare for itself.
    program = os.environ.get("PREFORKD_MASTER", "").partition(" ")[2]
    refusal = mismatch(getattr(module, "CONTRACT", None), os.environ.get("PREFORKD_CONTRACT"), path, program)
    if refusal:
        return refusal
    if sys.argv[1:] == ["look"]:
        sys.stdout.write("Python %d.%d.%d\n" % sys.version_info[:3])
        return None
    patient(module)
    show_levels(module)
    return module.main()


sys.exit(unfit() or run())
