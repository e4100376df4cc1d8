"""Build of the compiled modules; everything else about the package is in pyproject.toml."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - pip asks an old Python, too, what it needs to build
    sys.exit(f"convext needs Python 3.10 or later, this is Python {sys.version.split()[0]}")

import gzip
import io
import os
import shlex
import subprocess
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError

# Not all that run this file have its folder in the path.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from tools.made_of import Made, digest
from tools.toolchain import (
    C_FLAGS,
    MICROKERNEL_FLAGS,
    MICROKERNELS,
    compiler_for,
    dispatch_macros,
    kinds,
    microkernel_flags,
    microkernel_macros,
    numpy_headers,
    openmp_flags,
    python_library,
    target_named,
    this_machine,
)

MODULES = Path("src/convext")

# What is built for: this machine, or that of tools/cross.py.
CROSS_TARGET = os.environ.get("CONVEXT_TARGET")
TARGET = target_named(CROSS_TARGET) if CROSS_TARGET else this_machine()
CROSS = Path("build", CROSS_TARGET) if CROSS_TARGET else None

# Nor do most modules gain anything but size by -O3: all but those with loops over elements.
WITH_O3 = {"_correlation", "_depthwise", "_gradient_by_dots", "_kernel_gradient"}

# Loops over elements take next to nothing of the time of these: -Os saves 75 KB.
FOR_SIZE = {
    "_convolution",
    "_differentiation",
    "_dispatch",
    "_fft",
    "_fft_plan",
    "_gradient_plan",
    "_interrupt",
    "_layers",
    "_scratch",
    "_separable",
    "_statistics",
    "_steps",
    "_tasks",
    "_ways",
    "_weights",
    "_winograd_plan",
}

# The module in whose library all others lie: see convext/_compiled.py.
LIBRARY = "convext.base._dispatch"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    # Plain built-in functions, without signatures that can be inspected: 140 KB less.
    "binding": False,
    # Most objects of compiled classes hold memory.
    "auto_pickle": False,
    # What of the process all threads share is listed in docs/threads.md.
    "freethreading_compatible": True,
}

# Compilers that run at a time unless -j says it; each may need half a GB.
MOST_COMPILERS = 8

# The commands that compile; before others a compiler need not be there.
BUILDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "install", "develop"}

OPENMP_PROBE = """
#include <omp.h>
int main(void)
{
    int threads = 0;
    #pragma omp parallel reduction(+: threads)
    threads += 1;
    return threads < 1 || omp_get_max_threads() < 1;
}
"""


class BuildExtensions(build_ext):
    """Probes for OpenMP, and makes one library of all modules and micro-kernels."""

    def build_extensions(self):
        (library,) = self.extensions
        if TARGET.system == "windows" or CROSS:
            self.use_compiler(compiler_for(TARGET), library)
        flags = list(C_FLAGS)
        if "-g" not in os.environ.get("CFLAGS", "").split():
            # Python's own flags have -g; the wheel would be four times as big. Nothing unwinds C.
            flags += ["-g0", "-fno-asynchronous-unwind-tables"]
            if TARGET.system == "linux":
                library.extra_link_args += ["-Wl,--strip-all", "-Wl,-z,noseparate-code"]
        openmp_compile, openmp_link = self.probe_openmp()
        library.extra_link_args += openmp_link
        with ThreadPoolExecutor(self.parallel or min(os.cpu_count() or 1, MOST_COMPILERS)) as pool:
            try:
                # The micro-kernels take longest, and need no Cython, so they come first.
                kernels = [
                    pool.submit(self.compile_microkernel, flags, *kind) for kind in kinds(TARGET)
                ]
                others = [
                    pool.submit(self.compile_module, flags + openmp_compile, source)
                    for source in chain([str(MICROKERNELS / "dispatch.c")], self.translate())
                ]
                library.extra_objects = [task.result() for task in kernels + others]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        library.sources, library.depends = [], library.extra_objects
        super().build_extensions()
        # What Windows's linkers leave beside a library, and a wheel would hold.
        for left in Path(self.get_ext_fullpath(LIBRARY)).parent.iterdir():
            if left.suffix in (".exp", ".lib", ".pdb"):
                left.unlink()

    def use_compiler(self, command, library):
        """Take a compiler with the options of GCC, in place of MSVC or for another machine."""
        from distutils.ccompiler import new_compiler  # noqa: PLC0415 - setuptools's

        given, self.compiler = self.compiler, new_compiler(compiler="unix")
        position = [] if TARGET.system == "windows" else ["-fPIC"]
        undefined = ["-undefined", "dynamic_lookup"] if TARGET.system == "macos" else []
        self.compiler.set_executables(
            compiler=command,
            compiler_so=[*command, "-DNDEBUG", "-fwrapv", *position],
            linker_so=[*command, "-shared", *undefined],
            linker_exe=command,
        )
        if not CROSS:
            for name in ("include_dirs", "library_dirs", "libraries", "macros"):
                setattr(self.compiler, name, getattr(given, name))
            return
        self.compiler.include_dirs = [str(CROSS / "include")]
        if TARGET.system == "windows":
            self.compiler.library_dirs = [str(CROSS / "libs")]
            library.libraries = [python_library()]

    def translate(self):
        """Let Cython make C of the modules; yield the files, which are compiled meanwhile."""
        how = DIRECTIVES, version("cython"), np.__version__
        for path in modules_in_cython():
            source = Path("build", path).with_suffix(".c")
            made = Made(source, digest(path, MICROKERNELS, how))
            if self.force or not made.already:
                from Cython.Build import cythonize  # noqa: PLC0415 - takes longer than all checks

                cythonize(
                    [Extension(module_of(path), [str(path)])],
                    include_path=["src"],
                    build_dir="build",
                    compiler_directives=DIRECTIVES,
                    force=True,
                )
                made.done()
            yield str(source)

    def probe_openmp(self):
        """Return the compiler and linker flags with which an OpenMP program links, or none."""
        if os.environ.get("CONVEXT_OPENMP") == "0":
            return [], []
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe_openmp.c")
            source.write_text(OPENMP_PROBE)
            for compile_flags, link_flags in openmp_flags(TARGET, CROSS):
                try:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=compile_flags
                    )
                    # A shared object, as the modules are: so LDFLAGS count as they do for these.
                    self.compiler.link_shared_object(
                        objects, str(Path(folder, "probe_openmp.so")), extra_postargs=link_flags
                    )
                except Exception:  # of distutils or setuptools
                    continue
                self.announce(f"convext: building with OpenMP ({' '.join(link_flags)})", level=2)
                return compile_flags, link_flags
        print(
            "convext: WARNING: this compiler cannot compile and link OpenMP programs; "
            "building a SINGLE-THREADED module.",
            file=sys.stderr,
        )
        return [], []

    def compile_microkernel(self, flags, isa, real, itemsize):
        """Compile microkernel.c for one instruction set and type; return the object file."""
        return self.compile(
            str(MICROKERNELS / "microkernel.c"),
            str(Path(self.build_temp, f"{isa}_{real}")),
            macros=microkernel_macros(TARGET, isa, real, itemsize),
            flags=flags + microkernel_flags(TARGET, isa, self.compiler.compiler),
        )

    def compile_module(self, flags, source):
        """Compile what Cython made of a module; return the object file."""
        macros = [
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            # Quicker exceptions, texts, numbers and calls of Python, which matter nowhere here,
            # take 30 KB; modules that several interpreters of a process could load, 20 KB.
            ("CYTHON_FAST_THREAD_STATE", "0"),
            ("CYTHON_USE_UNICODE_INTERNALS", "0"),
            ("CYTHON_USE_PYLONG_INTERNALS", "0"),
            ("CYTHON_UNPACK_METHODS", "0"),
            ("CYTHON_VECTORCALL", "0"),
            ("CYTHON_PEP489_MULTI_PHASE_INIT", "0"),
        ]
        macros += dispatch_macros(TARGET)
        name = Path(source).stem
        if LIBRARY.endswith(name):
            names = sorted({*map(module_of, modules_in_cython())} - {LIBRARY})
            macros.append(("CONVEXT_MODULES", f'"{" ".join(names)}"'))
        if name not in WITH_O3:
            flags = flags + (["-Os"] if name in FOR_SIZE else MICROKERNEL_FLAGS)
        return self.compile(source, self.build_temp, macros, flags)

    def compile(self, source, folder, macros, flags):
        """Compile a file, unless its object file is made of the same already, whatever its age."""
        (name,) = self.compiler.object_filenames([source], output_dir=folder)
        how = self.compiler.compiler_so, macros, flags, sys.version, np.__version__
        made = Made(Path(name), digest(Path(source), MICROKERNELS, how))
        if self.force or not made.already:
            try:
                self.compiler.compile(
                    [source],
                    output_dir=folder,
                    macros=macros,
                    include_dirs=[str(MICROKERNELS), numpy_headers(CROSS) or np.get_include()],
                    extra_postargs=flags,
                )
            except Exception as error:  # distutils raises its own classes, setuptools others
                raise CompileError(f"cannot compile {source}: {error}") from None
            made.done()
        return name


class SourceArchive(sdist):
    """The same files make the same bytes: in order, nobody's, and of a time that is given."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **_):
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir)
        seconds = int(os.environ["SOURCE_DATE_EPOCH"])

        def described(member):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = seconds
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        path = Path(f"{base_name}.tar.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = io.BytesIO()
        with tarfile.open(fileobj=contents, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(base_dir, filter=described)
        path.write_bytes(gzip.compress(contents.getvalue(), mtime=seconds))
        return str(path)


def modules_in_cython():
    return sorted(MODULES.rglob("*.pyx"))


def module_of(path):
    """Return the name of the module that a file is compiled to."""
    return ".".join(path.relative_to(MODULES.parent).with_suffix("").parts)


def library():
    return Extension(
        LIBRARY,
        [str(path) for path in modules_in_cython()],
        depends=[str(path) for path in (*MODULES.rglob("*.pxd"), *MICROKERNELS.glob("*.[ch]"))],
    )


def check_compiler():
    """End with one line where nothing can be compiled, before Cython has worked for long."""
    if TARGET.system == "windows" or CROSS:
        compiler_for(TARGET)
        return
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "")
    if not compiler:
        return
    if not compiles(compiler, "int main(void) { return 0; }"):
        sys.exit(
            "convext needs a C compiler, GCC or Clang, but "
            f"`{shlex.join(compiler)}` does not work: see "
            "`apt install gcc python3-dev`, `dnf install gcc python3-devel` or "
            "`xcode-select --install`"
        )
    includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    if not compiles([*compiler, *includes], "#include <Python.h>"):
        sys.exit(
            f"convext needs Python's headers, but `{shlex.join(compiler)}` does not find "
            "Python.h or what it includes: see `apt install python3-dev` or "
            "`dnf install python3-devel`"
        )


def compiles(compiler, source):
    command = [*compiler, "-fsyntax-only", "-x", "c", "-"]
    try:
        return not subprocess.run(
            command, input=source, text=True, check=False, capture_output=True
        ).returncode
    except OSError:
        return False


if BUILDS.intersection(sys.argv):
    check_compiler()
# The time of the files in archives and wheels, unless it is given: two builds are the same bytes.
os.environ.setdefault("SOURCE_DATE_EPOCH", "946684800")
setup(ext_modules=[library()], cmdclass={"build_ext": BuildExtensions, "sdist": SourceArchive})
