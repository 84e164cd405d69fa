"""Tells hatchling the tag of the wheel: any Python, and the systems that have what the files of the wheel need."""

import glob
import os
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Tag(BuildHookInterface):
    def initialize(self, version, build_data):
        import elf

        laid = os.path.join(self.root, "target", "wheel")
        newest = elf.newest_glibc(glob.glob(os.path.join(laid, "bin", "*")) + glob.glob(os.path.join(laid, "libexec", "preforkd", "*")))
        machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        # Without a symbol of glibc it is for systems like this one.
        if newest:
            machine = "manylinux_%d_%d_%s" % (*newest, machine.removeprefix("linux_"))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + machine
