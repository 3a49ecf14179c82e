"""The typed configuration of a run."""

from mivolo_lite.config.read import help_text, is_on_command_line, read_run_config
from mivolo_lite.config.schema import INTERFACES, REGISTRIES

__all__ = ["INTERFACES", "REGISTRIES", "help_text", "is_on_command_line", "read_run_config"]
