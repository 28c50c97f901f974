"""Every key of the configuration, its type and its default, under the names that the YAML files use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


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
class GradientPenaltySection:
    """A penalty on how steep the discriminators are at real images (R1; or the matching-aware one of DF-GAN)."""

    KIND: str = ""  # r1 | matching_aware; empty = none
    WEIGHT: float = 2.0  # as published for matching_aware; r1 is usual at 10
    EVERY: int = 1  # steps from one to the next, whose weight is multiplied by them


@dataclass
class TrainSection:
    FLAG: bool = True  # False: sample and evaluate instead of training
    NET_G: str = ""  # generator snapshot to evaluate, or to start training from
    B_NET_D: bool = True  # with NET_G: load the discriminators beside it, too
    BATCH_SIZE: int = 10
    LOOK_ALIKES: int = 1  # so many images of a batch are taken together as their captions are alike; 1 = at random
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
    CLIP_ACTIVATION: str = ""  # of weights from a file that do not say it: gelu | quick_gelu
    CLIP_MEAN: list[float] = field(default_factory=list)  # of colours from 0 to 1, the same; empty = what they say
    CLIP_STD: list[float] = field(default_factory=list)
    CLIP_MODEL_CHECKPOINT: str = ""  # fine-tuned encoder written by pretrain_DAMSM.py
    SMOOTH: SmoothSection = field(default_factory=SmoothSection)
    CONTRASTIVE: ContrastiveSection = field(default_factory=ContrastiveSection)
    DIFFAUG: list[str] = field(default_factory=list)  # for few images: color, translation, cutout; empty = none
    GRADIENT_PENALTY: GradientPenaltySection = field(default_factory=GradientPenaltySection)


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
    CLIP_ACTIVATION: str = ""
    CLIP_MEAN: list[float] = field(default_factory=list)
    CLIP_STD: list[float] = field(default_factory=list)
    CLIP_MODEL_CHECKPOINT: str = ""


@dataclass
class EvalSection:
    NUM_IMAGES: int = 30000
    BATCH_SIZE: int = 32  # images are sampled 8 together: rounded down to a multiple of 8, and at least 8
    INTERVAL: int = 0  # GAN training: measure the EMA generator every so many epochs; 0 = at snapshots
    MEASURE_IMAGES: int = 1000  # images that a measurement during training takes, spread over the split
    METRICS: list[str] = field(default_factory=list)  # scores while training; empty = those that cost little
    BEST_BY: str = "r_precision"  # the score that keeps netG_best.pth
    BEST_SPLIT: str = "train"  # the split whose captions it measures; choosing by "test" flatters test scores
    INCEPTION_WEIGHTS: str = ""  # FID and the like during training: empty = none, or published | random | FILE
    SCORE_WEIGHTS: str = ""  # the Inception Score's network during training: likewise
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

    def __post_init__(self) -> None:
        # Where each key was said: key → the file, "--set" or a flag. A key that is not there has its default. This is
        # no key itself: configs with equal values are equal, wherever these come from, and it is not written.
        self.said = dict[str, str]()

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
