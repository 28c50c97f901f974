"""Tiny CLIPs of open_clip's and files of their model configs, for the tests of clip_*."""

import json

import open_clip
import torch

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TINY = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
CAPTIONS = ["a small red bird with black wings", "bird"]
HALF = [0.5, 0.5, 0.5]


def changed(vision=None, text=None, **others):
    config = {**TINY, **others, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}}
    return {key: value for key, value in config.items() if value is not ...}


def json_file(folder, config=TINY, name="tiny.json"):
    (folder / name).write_text(json.dumps(config))
    return str(folder / name)


def open_clips(config=TINY):
    """A network of open_clip's, away from an initialisation that would hide a swapped bias."""
    torch.manual_seed(1)
    arguments = dict(config)
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    clip = kind(**arguments).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return clip


@torch.no_grad()
def assert_same_numbers(encoder, clip, tolerance=1e-5):
    encoder = encoder.eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = clip.encode_image(encoder.preprocess(images))
    assert torch.allclose(encoder.encode_image(images).image, theirs, atol=tolerance)
    tokens = encoder.tokenize(CAPTIONS)
    length = getattr(clip, "text", clip).context_length
    padded = torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))
    assert torch.allclose(encoder.encode_text(tokens).sentence, clip.encode_text(padded), atol=tolerance)
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
