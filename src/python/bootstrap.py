# Run by a worker as `python -c`: loads the extension module that PREFORKD_EXTENSION names and hands over to it.
import os
import sys


def patient(module):
    """Standard output and error for which a frozen log reader, or a full disk, does not stop the application."""
    import io

    class Stream(io.FileIO):
        def write(self, data):
            return module.say(self.fileno(), bytes(data))

    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is None or old.isatty():
            continue
        old.flush()
        raw = Stream(number, "wb", closefd=False)
        raw.name = old.name
        # With PYTHONUNBUFFERED, which is usual in containers, nothing may wait in a buffer.
        new = io.TextIOWrapper(
            raw if old.write_through else io.BufferedWriter(raw),
            old.encoding, old.errors, line_buffering=old.line_buffering, write_through=old.write_through,
        )
        new.mode = "w"
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


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
    patient(module)
    return module.main()


sys.exit(run())
