"""Build hook: the task files stand at top level in a checkout and travel in a wheel as mtl/_tasks.

Everything else about the package is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithTasks(build_py):
    """Adds ``tasks/**.yaml`` to what is built; an editable install reads the checkout instead."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        # A build folder is kept between builds; a task that was removed must not stay in it.
        shutil.rmtree(Path(self.build_lib) / "mtl" / "_tasks", ignore_errors=True)
        for source, target in self._task_files().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *self._task_files().values()]

    def _task_files(self) -> dict[str, str]:
        """File in the checkout → its place in the build folder."""
        root = HERE / "tasks"
        found = sorted(path for suffix in ("yaml", "yml") for path in root.rglob(f"*.{suffix}"))
        if not found:
            raise SystemExit(f"There are no task files in {root}; build from a complete checkout.")
        target = Path(self.build_lib) / "mtl" / "_tasks"
        return {str(path): str(target / path.relative_to(root)) for path in found}


setup(cmdclass={"build_py": BuildWithTasks})
