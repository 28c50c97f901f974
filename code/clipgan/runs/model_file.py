"""One file with all that drawing needs: generator, encoder, tokens, sizes, and what the model says of itself.

The file is a ``.safetensors``: tensors named ``generator.*`` and ``encoder.*``, and one text, a JSON dictionary of the
shape ``DESCRIPTION``. Nothing in it can run. Whatever it says is checked before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch

from clipgan.config import Config, config_from_dict
from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.gate import parse_json, reading, short
from clipgan.files.safetensors_file import read_described
from clipgan.files.writing import write_failure
from clipgan.networks.clip_encoder import ClipEncoder, read_spec, restore_encoder
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint
from clipgan.runs.architecture import GENERATOR_ARGUMENTS

FORMAT = "clipgan model 1"
EXPECTED = "a model, which python tools/export_model.py --cfg cfg/eval_clip_bird.yml --out model.safetensors writes"
SUFFIX = ".safetensors"
LONGEST_CARD, LONGEST_NAME, LONGEST_WORD = 100_000, 200, 200  # characters
MOST_WORDS, LARGEST_VOCABULARY = 400_000, 2 << 20  # words of a vocabulary; bytes of them all, in the file
_LARGEST_DESCRIPTION = 3 << 20  # bytes; the header that holds it must stay below the 4 MB that are read
SCORE = shapes.record(
    {"name": shapes.text(200), "value": shapes.number(-1e12, 1e12), "protocol": shapes.text(2000)},
    {"spread": shapes.number(0, 1e12), "of_real_images": shapes.number(-1e12, 1e12), "notice": shapes.text(2000)},
)
DESCRIPTION = shapes.record(
    {
        "format": shapes.one_of(FORMAT),
        "name": shapes.text(LONGEST_NAME),
        "generator": GENERATOR_ARGUMENTS,
        "encoder": shapes.mapping_of(shapes.anything, at_most=20),
        "image_side": shapes.flag,
        "generator_fingerprint": shapes.text(100),
        "encoder_fingerprint": shapes.text(100),
        "tokens": shapes.text(500),
        "vocabulary": shapes.list_of(shapes.text(LONGEST_WORD), at_most=MOST_WORDS),
        "config": shapes.mapping_of(shapes.anything, at_most=100),
        "data_set": shapes.mapping_of(shapes.anything, at_most=50),
        "scores": shapes.list_of(SCORE, at_most=100),
        "versions": shapes.mapping_of(shapes.text(200), at_most=50),
        "date": shapes.text(100),
        "card": shapes.text(LONGEST_CARD),
    }
)


@dataclass
class ModelFile:
    """What a model's file holds.

    Attributes:
        generator: the averaged one, in evaluation mode.
        encoder: frozen; its image side only where it was exported with it.
        config: of the training run; of the evaluation where the generator's snapshot does not keep that of its run.
        name: for people.
        vocabulary: the words of the training captions as the encoder's tokenizer cuts them; empty where they are not
            known.
        data_set: what is known of it: name, images, captions, fingerprint.
        scores: name, value, protocol, and where known spread and the real images' value, of each.
        versions: of Python and the packages that wrote the file.
        date: of the export, ISO 8601.
        card: a text in Markdown about the model.
        fingerprints: of generator and whole encoder.
    """

    generator: Generator
    encoder: ClipEncoder
    config: Config
    name: str
    vocabulary: tuple[str, ...] = ()
    data_set: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
    card: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)


def require_suffix(path: str | Path) -> None:
    """Refuse a name for a model's file that does not end in ``.safetensors``; raises ``UserError``."""
    if Path(path).suffix != SUFFIX:
        raise UserError(f"{path}: the name of a model's file must end in {SUFFIX}")


def write_model(path: str | Path, model: ModelFile, architecture: dict[str, int]) -> None:
    """Write a model to one file, whole or not at all.

    Args:
        path: ends in ``.safetensors``.
        model: its encoder without image side is written without.
        architecture: the arguments of its ``Generator``.

    Raises:
        UserError: another ending, weights that are not finite, a text or a list that is too long to be read again, or
            the file cannot be written.
    """
    path = Path(path)
    require_suffix(path)
    description = {
        "format": FORMAT,
        "name": model.name,
        "generator": architecture,
        "encoder": asdict(model.encoder.spec),
        "image_side": model.encoder.sees_images,
        **{f"{part}_fingerprint": model.fingerprints[part] for part in ("generator", "encoder")},
        "tokens": f"CLIP's BPE of open_clip ({model.encoder.spec.words_num} tokens between start and end)",
        "vocabulary": list(model.vocabulary),
        "config": asdict(model.config),
        "data_set": model.data_set,
        "scores": model.scores,
        "versions": model.versions,
        "date": model.date,
        "card": model.card,
    }
    description = json.loads(json.dumps(description, ensure_ascii=False))  # as it will be read: tuples become lists
    with reading(path, "a description that can be read again"):
        DESCRIPTION(description, "its description")
        text = json.dumps(description, ensure_ascii=False)
        size = len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass"))
        if size > _LARGEST_DESCRIPTION:
            raise ValueError(f"its description has {size:,} bytes, and may have {_LARGEST_DESCRIPTION:,}")
    weights = {}
    for part, network in (("generator", model.generator), ("encoder", model.encoder)):
        weights |= {f"{part}.{name}": tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    checkpoint.require_finite(weights, "the model")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's files have it; safetensors' writer lets nobody else read
        safetensors.torch.save_file(weights, temporary, metadata={"description": text})
        temporary.chmod(mode)
        os.replace(temporary, path)
    except OSError as error:
        raise write_failure(error, path) from None
    except safetensors.SafetensorError as error:  # its writer's name for a disk that is full
        raise UserError(f"{path}: cannot be written ({error}): make room or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_model(path: str | Path) -> ModelFile:
    """Read a model that :func:`write_model` wrote, onto the CPU.

    Raises:
        UserError: no such file; no model; damaged; or its weights do not fit what it says of itself.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no model at {path}: expected {EXPECTED}")
    weights, said = read_described(path, expected=EXPECTED)
    with reading(path, EXPECTED):
        if "description" not in said:
            raise ValueError("holds weights, but no description of a model")
        description = parse_json(said["description"])
        if isinstance(description, dict) and description.get("format") != FORMAT:
            raise ValueError(f"has format {short(description.get('format'))}, not {FORMAT!r}")
        DESCRIPTION(description, "its description")
        checkpoint.require_finite(weights, "the model")
        others = [name for name in weights if not name.startswith(("generator.", "encoder."))]
        if others:
            raise ValueError(f"has {short(others[0])[1:-1]}, which is no part of a model")
    parts = [
        {name.removeprefix(part): tensor for name, tensor in weights.items() if name.startswith(part)}
        for part in ("generator.", "encoder.")
    ]
    spec = read_spec(description["encoder"], path)
    with reading(path, EXPECTED):
        generator = checkpoint.load_into(lambda: Generator(**description["generator"]), parts[0], path)
    encoder = restore_encoder(spec, parts[1], path, image_side=description["image_side"])
    _require_one_width(generator, encoder, path)
    return ModelFile(
        generator=generator.requires_grad_(False).eval(),
        encoder=encoder.freeze(),
        config=config_from_dict(description["config"], str(path)),
        vocabulary=tuple(description["vocabulary"]),
        fingerprints={part: description[f"{part}_fingerprint"] for part in ("generator", "encoder")},
        **{key: description[key] for key in ("name", "data_set", "scores", "versions", "date", "card")},
    )


def _require_one_width(generator: Generator, encoder: ClipEncoder, path: Path) -> None:
    ours = generator.word_dim, generator.input_widths["sentence"]
    theirs = encoder.word_dim, encoder.sentence_dim
    if ours != theirs:
        raise UserError(
            f"{path}: its generator reads words and sentences of {ours[0]} and {ours[1]} dimensions, but its encoder "
            f"writes {theirs[0]} and {theirs[1]}; expected {EXPECTED}"
        )
