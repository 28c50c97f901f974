"""The typed configuration: strict YAML in, YAML out, overrides from the command line.

Every key, its type and its default stand in the dataclasses below, under the names that the YAML files use. A file
may leave keys out; it may not invent any. ``Config`` is made once, by a script, and handed down as plain arguments:
networks and losses never see it.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from clipgan.errors import UserError


@dataclass
class TreeSection:
    """The stages of the generator: ``BRANCH_NUM`` images, the first ``BASE_SIZE`` pixels wide, each twice the last."""

    BRANCH_NUM: int = 3
    BASE_SIZE: int = 64


@dataclass
class DataSection:
    """How an image is prepared; evaluation uses the same with a centre crop and no flip."""

    BOX_CROP: bool = True  # cut to the bounding box where an image has one
    CROP_SCALE: float = 76 / 64  # shorter side before the crop, in units of the crop
    FLIP: bool = True  # mirror half of the training images
    CACHE: bool = False  # keep each training image, cut to its box and resized, in OUTPUT_DIR/cache


@dataclass
class SmoothSection:
    """Temperatures of the DAMSM losses (AttnGAN, eq. 8-13) and its weight λ in the generator's loss."""

    GAMMA1: float = 4.0
    GAMMA2: float = 5.0
    GAMMA3: float = 10.0
    LAMBDA: float = 1.0


@dataclass
class ContrastiveSection:
    """NT-Xent between the two captions (pretraining) or the two images made from them (GAN)."""

    WEIGHT: float = 0.2  # as published: 0.2 in GAN training, 1 in pretraining, whose configs say so
    TEMPERATURE: float = 0.5


@dataclass
class TrainSection:
    FLAG: bool = True  # False: sample and evaluate instead of training
    NET_G: str = ""  # generator snapshot to evaluate, or to start training from
    B_NET_D: bool = True  # with NET_G: load the discriminators beside it, too
    BATCH_SIZE: int = 10
    MAX_EPOCH: int = 800
    MAX_STEPS: int = 0  # end after so many steps, whatever MAX_EPOCH says; 0 = no limit
    SNAPSHOT_INTERVAL: int = 50  # epochs
    DISCRIMINATOR_LR: float = 2e-4
    GENERATOR_LR: float = 2e-4
    BACKBONE_LR: float = 2e-5  # peak of the one-cycle schedule of CLIP's own weights
    LINEAR_LR: float = 2e-3  # the same of the region projection
    RNN_GRAD_CLIP: float = 0.25  # largest gradient norm in pretraining (the name is the lineage's)
    EMA: float = 0.999  # decay of the averaged generator weights; 0 = no averaging
    PRECISION: str = "fp32"  # fp32 | tf32 (CUDA only) | bf16 (fp32 where a processor would emulate it) | fp16
    COMPILE: bool = False  # torch.compile the networks
    ACCUMULATE: int = 1  # pretraining: encode the batch in so many parts, exactly the same step in less memory
    SYNC_BN: bool = True  # several processes: batch norm over the global batch
    STATE_INTERVAL: float = 10.0  # minutes between training states, for --resume; 0 = only at the end or when stopped
    WORD_LOSS: bool = True  # False: the generator sees the sentence loss only (ablation)
    CLIP_MODEL_BASE: str = "ViT-B-32"  # open_clip model name, or a JSON file in open_clip's format
    CLIP_PRETRAINED: str = "openai"  # open_clip tag, a weights file, or empty for a random start
    CLIP_MODEL_CHECKPOINT: str = ""  # fine-tuned encoder written by pretrain_DAMSM.py
    SMOOTH: SmoothSection = field(default_factory=SmoothSection)
    CONTRASTIVE: ContrastiveSection = field(default_factory=ContrastiveSection)


@dataclass
class GanSection:
    DF_DIM: int = 32
    GF_DIM: int = 64
    Z_DIM: int = 100
    CONDITION_DIM: int = 512
    R_NUM: int = 2


@dataclass
class TextSection:
    CAPTIONS_PER_IMAGE: int = 10
    EMBEDDING_DIM: int = 512  # width of the word features: must be the encoder's
    WORDS_NUM: int = 28  # longest caption in BPE tokens; the rest is cut off
    RAW_CAPTIONS: bool = False  # True: captions as written, without the lineage's cleaning


@dataclass
class JudgeSection:
    """The encoder that measures R-precision; empty = the fine-tuned encoder that also trained the generator."""

    CLIP_MODEL_BASE: str = ""
    CLIP_PRETRAINED: str = ""
    CLIP_MODEL_CHECKPOINT: str = ""


@dataclass
class EvalSection:
    NUM_IMAGES: int = 30000
    BATCH_SIZE: int = 32  # images are sampled 8 together: rounded down to a multiple of 8, and at least 8
    INTERVAL: int = 0  # GAN training: measure the EMA generator every so many epochs; 0 = at snapshots
    MEASURE_IMAGES: int = 1000  # images that a measurement during training takes, spread over the split
    BEST_BY: str = "r_precision"  # the measure that keeps netG_best.pth: r_precision | attributes | fid
    BEST_SPLIT: str = "train"  # the split whose captions it measures; choosing by "test" flatters test scores
    INCEPTION_WEIGHTS: str = ""  # FID during training: empty = none, or published | random | FILE
    JUDGE: JudgeSection = field(default_factory=JudgeSection)


@dataclass
class Config:
    CONFIG_NAME: str = "run"
    DATASET_NAME: str = "birds"
    DATA_DIR: str = "data/birds"
    OUTPUT_DIR: str = "output"
    GPU_ID: int | None = None  # None: CUDA if there is one; -1: the CPU
    CUDA: bool = True  # False: the CPU, whatever GPU_ID says
    WORKERS: int = 4
    SEED: int = 100
    B_VALIDATION: bool = False  # evaluation: True measures on the test split, False draws example_filenames.txt
    TREE: TreeSection = field(default_factory=TreeSection)
    DATA: DataSection = field(default_factory=DataSection)
    TRAIN: TrainSection = field(default_factory=TrainSection)
    GAN: GanSection = field(default_factory=GanSection)
    TEXT: TextSection = field(default_factory=TextSection)
    EVAL: EvalSection = field(default_factory=EvalSection)

    @property
    def image_sizes(self) -> list[int]:
        """Sides of the generator's images in pixels, smallest first."""
        return [self.TREE.BASE_SIZE * 2**i for i in range(self.TREE.BRANCH_NUM)]

    @property
    def image_size(self) -> int:
        """Side of the largest image in pixels."""
        return self.image_sizes[-1]

    @property
    def run_name(self) -> str:
        return f"{self.DATASET_NAME}_{self.CONFIG_NAME}"

    def total_steps(self, batches: int) -> int:
        """Optimizer steps of a run whose epochs have so many batches."""
        steps = self.TRAIN.MAX_EPOCH * batches
        return min(steps, self.TRAIN.MAX_STEPS) if self.TRAIN.MAX_STEPS else steps

    def generator_arguments(self, word_dim: int, sentence_dim: int) -> dict[str, int]:
        """The plain arguments of ``networks.generator.Generator`` for an encoder of these widths."""
        return {
            "gf_dim": self.GAN.GF_DIM,
            "z_dim": self.GAN.Z_DIM,
            "condition_dim": self.GAN.CONDITION_DIM,
            "word_dim": word_dim,
            "sentence_dim": sentence_dim,
            "residual_num": self.GAN.R_NUM,
            "base_size": self.TREE.BASE_SIZE,
            "branch_num": self.TREE.BRANCH_NUM,
        }

    def discriminator_arguments(self, sentence_dim: int) -> list[dict[str, int]]:
        """The plain arguments of ``networks.discriminator.Discriminator``, one dict for each image size."""
        return [
            {"image_size": size, "df_dim": self.GAN.DF_DIM, "sentence_dim": sentence_dim} for size in self.image_sizes
        ]


# Keys of the original code that had no effect there. They are accepted, so that its files still load.
_WITHOUT_EFFECT = {
    *("STEP_SIZE_UP", "STEP_SIZE_DOWN", "GAMMA", "BASE_LR", "MAX_LR", "NET_E", "DEVICE", "ENCODER_LR"),
    *("RNN_TYPE", "B_ATTENTION", "B_DCGAN"),
}
_CHOICES = {
    "TRAIN.PRECISION": ("fp32", "tf32", "bf16", "fp16"),
    "EVAL.BEST_BY": ("r_precision", "attributes", "fid"),
    "EVAL.BEST_SPLIT": ("train", "test"),
}
_AT_LEAST = {
    "WORKERS": 0,
    "SEED": 0,
    "TREE.BRANCH_NUM": 1,
    "TREE.BASE_SIZE": 8,
    "DATA.CROP_SCALE": 1.0,
    "TRAIN.MAX_EPOCH": 0,
    "TRAIN.MAX_STEPS": 0,
    "TRAIN.SNAPSHOT_INTERVAL": 1,
    "TRAIN.EMA": 0.0,
    "TRAIN.ACCUMULATE": 1,
    "TRAIN.STATE_INTERVAL": 0.0,
    "GAN.DF_DIM": 1,
    "GAN.GF_DIM": 1,
    "GAN.Z_DIM": 1,
    "GAN.CONDITION_DIM": 1,
    "GAN.R_NUM": 1,
    "TEXT.CAPTIONS_PER_IMAGE": 1,
    "TEXT.EMBEDDING_DIM": 1,
    "TEXT.WORDS_NUM": 1,
    "EVAL.NUM_IMAGES": 1,
    "EVAL.BATCH_SIZE": 1,
    "EVAL.INTERVAL": 0,
    "EVAL.MEASURE_IMAGES": 2,
}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file into a checked :class:`Config`.

    Args:
        path: the YAML file.
        overrides: ``KEY.PATH=VALUE`` strings, applied in order after the file; the value is read as YAML.

    Raises:
        UserError: the file is missing or no YAML mapping; a key is unknown (with the nearest valid one), a value has
            the wrong type or contradicts another.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no config file at {path}: give the path of a YAML file, such as cfg/DAMSM/bird.yml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of keys to values, not a {type(values).__name__}")
    config = Config()
    ignored: list[str] = []
    _update(config, values, "", str(path), ignored)
    for override in overrides:
        _apply_override(config, override, ignored)
    if ignored:
        names = ", ".join(sorted(set(ignored)))
        print(f"warning: {path}: these keys of the original code have no effect: {names}", file=sys.stderr)
    check(config, str(path))
    return config


def config_from_dict(values: dict, source: str) -> Config:
    """A checked config of what ``dataclasses.asdict`` made of one; raises as :func:`load_config`."""
    config = Config()
    _update(config, values, "", source, [])
    check(config, source)
    return config


def save_config(config: Config, path: str | Path) -> None:
    """Write every key with its resolved value; :func:`load_config` reads the file back to an equal config."""
    Path(path).write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(asdict(config), sort_keys=False)


def require_generator_size(config: Config) -> None:
    """The generator doubles 4×4 up to ``TREE.BASE_SIZE``; pretraining takes any size.

    Raises:
        UserError: the size is no power of two.
    """
    size = config.TREE.BASE_SIZE
    if size & (size - 1):
        raise UserError(f"TREE.BASE_SIZE must be a power of two (8, 16, 32, 64, …) for the generator, not {size}")


def require_embedding_dim(config: Config, word_dim: int) -> None:
    """Refuse a config whose ``TEXT.EMBEDDING_DIM`` is not the width of the encoder's words."""
    if word_dim != config.TEXT.EMBEDDING_DIM:
        raise UserError(
            f"TEXT.EMBEDDING_DIM is {config.TEXT.EMBEDDING_DIM}, but the words of {config.TRAIN.CLIP_MODEL_BASE} "
            f"have {word_dim} dimensions"
        )


def key_paths(node: Any = None, prefix: str = "") -> Iterator[str]:
    """All keys as ``SECTION.KEY``, in the order of the dataclasses."""
    for item in fields(node or Config()):
        value = getattr(node or Config(), item.name)
        if is_dataclass(value):
            yield from key_paths(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def get_key(config: Config, key: str) -> Any:
    """The value at ``SECTION.KEY``."""
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name)
    return node


def set_key(config: Config, key: str, value: Any) -> None:
    """Set the value at ``SECTION.KEY``."""
    section, _, name = key.rpartition(".")
    setattr(get_key(config, section) if section else config, name, value)


def _apply_override(config: Config, override: str, ignored: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected KEY.PATH=VALUE, such as TRAIN.BATCH_SIZE=4")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    nested: Any = value
    for name in reversed(key.strip().split(".")):
        nested = {name: nested}
    _update(config, nested, "", "--set", ignored)


def _update(node: Any, values: dict, prefix: str, source: str, ignored: list[str]) -> None:
    hints = get_type_hints(type(node))
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            if key in _WITHOUT_EFFECT:
                ignored.append(name)
                continue
            raise UserError(f"{source}: unknown key {name}{_nearest(str(name))}")
        current = getattr(node, key)
        if is_dataclass(current):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {name} is a section with keys below it, not a value ({value!r})")
            _update(current, value, f"{name}.", source, ignored)
        else:
            setattr(node, key, _convert(value, hints[key], name, source))


def _nearest(name: str) -> str:
    paths = list(key_paths())
    last = name.rpartition(".")[2]
    found = [path for path in paths if path.rpartition(".")[2] == last]  # a right key in the wrong section
    found = found or difflib.get_close_matches(name, paths, n=1, cutoff=0.6)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _convert(value: Any, hint: Any, name: str, source: str) -> Any:
    """Give a YAML value the type of its key; ``1e-4``, which YAML 1.1 reads as a string, is a number all the same."""
    if hint == int | None:
        if value is None or value == "":
            return None
        hint = int
    if hint is str and value is None:
        return ""
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        kinds = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
        raise UserError(f"{source}: {name} must be {kinds[hint]}, not {value!r}")
    return value


def check(config: Config, source: str) -> None:
    """Refuse values out of range and contradictions, with ``source`` and the key in the message."""
    for key, choices in _CHOICES.items():
        if get_key(config, key) not in choices:
            raise UserError(f"{source}: {key} must be one of {', '.join(choices)}, not {get_key(config, key)!r}")
    for key in key_paths():
        value, least = get_key(config, key), _AT_LEAST.get(key)
        if least is not None and not value >= least:
            raise UserError(f"{source}: {key} must be at least {least}, not {value}")
        if isinstance(value, float) and not (0 <= value < float("inf")):
            raise UserError(f"{source}: {key} must be a finite number that is not negative, not {value}")
    for key in ("TRAIN.SMOOTH.GAMMA2", "TRAIN.CONTRASTIVE.TEMPERATURE", "TRAIN.RNN_GRAD_CLIP"):
        if get_key(config, key) == 0:
            raise UserError(f"{source}: {key} must be above 0")
    if config.EVAL.JUDGE.CLIP_PRETRAINED and not config.EVAL.JUDGE.CLIP_MODEL_BASE:
        raise UserError(f"{source}: EVAL.JUDGE.CLIP_PRETRAINED needs EVAL.JUDGE.CLIP_MODEL_BASE, the model they are of")
    if config.EVAL.BEST_BY == "fid" and config.EVAL.BEST_SPLIT != "test":
        raise UserError(f"{source}: EVAL.BEST_BY fid compares with the test split: set EVAL.BEST_SPLIT to test")
    if config.TRAIN.BATCH_SIZE < 2:
        raise UserError(
            f"{source}: TRAIN.BATCH_SIZE must be at least 2, not {config.TRAIN.BATCH_SIZE}: "
            "the matching losses compare the pairs of a batch"
        )
    if config.TRAIN.EMA >= 1:
        raise UserError(f"{source}: TRAIN.EMA must be below 1, not {config.TRAIN.EMA}")
    if not config.CONFIG_NAME or "/" in config.run_name:
        raise UserError(f"{source}: CONFIG_NAME and DATASET_NAME name the run folder: neither empty nor with a slash")
