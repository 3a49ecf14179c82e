"""What pyproject.toml cannot say: the wheel has ``configs/`` and ``launch/`` inside ``mivolo_lite/``."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithFiles(build_py):
    """Adds the two folders, except to an editable install, which reads them from the clone."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "launch"):
                self.copy_tree(folder, f"{self.build_lib}/mivolo_lite/{folder}")


setup(cmdclass={"build_py": BuildWithFiles})
