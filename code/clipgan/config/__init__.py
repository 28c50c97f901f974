"""The typed configuration: strict YAML in, YAML out, overrides from the command line.

Every key, its type and its default stand in ``sections.py``, what its values may be in ``bounds.py``. A file may leave
keys out; it may not invent any. ``Config`` is made once, by a script, and handed down as plain arguments: networks and
losses never see it.
"""

from clipgan.config.bounds import BOUNDS, check, require_embedding_dim, require_generator_size
from clipgan.config.loading import config_from_dict, config_of_settings, load_config, save_config, to_yaml
from clipgan.config.sections import (
    Config,
    ContrastiveSection,
    DataSection,
    EvalSection,
    GanSection,
    JudgeSection,
    SmoothSection,
    TextSection,
    TrainSection,
    TreeSection,
    get_key,
    key_paths,
    set_key,
)

__all__ = [
    "BOUNDS",
    "Config",
    "ContrastiveSection",
    "DataSection",
    "EvalSection",
    "GanSection",
    "JudgeSection",
    "SmoothSection",
    "TextSection",
    "TrainSection",
    "TreeSection",
    "check",
    "config_from_dict",
    "config_of_settings",
    "get_key",
    "key_paths",
    "load_config",
    "require_embedding_dim",
    "require_generator_size",
    "save_config",
    "set_key",
    "to_yaml",
]
