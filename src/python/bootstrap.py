# Run by a worker as `python -c`: loads the extension module that PREFORKD_EXTENSION names and hands over to it.
import os
import sys


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
    return module.main()


sys.exit(run())
