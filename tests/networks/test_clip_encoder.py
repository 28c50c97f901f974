"""The CLIP encoder: equal to an independent implementation, and exact about what must not matter."""

import copy
import json
import pickle

import pytest
import torch
from PIL import Image

from clipgan.errors import UserError
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.snapshots import load_encoder, save_encoder

TINY = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
CAPTIONS = ["a small red bird with black wings", "bird", "this bird is white with grey wings and has a long pale beak"]


def model_file(folder, **changes):
    path = folder / "tiny.json"
    path.write_text(json.dumps({**TINY, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return build_encoder(model_file(tmp_path_factory.mktemp("clip")), "", words_num=12).eval()


def transformers_twin(encoder):
    """The same weights in transformers' CLIPModel."""
    from transformers import CLIPConfig, CLIPModel

    model = encoder.spec.model
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model["quick_gelu"] else "gelu"
    config = CLIPConfig(
        text_config={
            "hidden_size": text["width"], "intermediate_size": 4 * text["width"], "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"], "vocab_size": 49408, "max_position_embeddings": 77,
            "hidden_act": activation, "bos_token_id": 49406, "eos_token_id": 49407,
        },
        vision_config={
            "hidden_size": vision["width"], "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"], "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"], "patch_size": vision["patch_size"], "hidden_act": activation,
        },
        projection_dim=model["embed_dim"],
    )
    twin = CLIPModel(config).eval()
    source = encoder.clip.state_dict()
    state = {
        "logit_scale": source["logit_scale"],
        "text_projection.weight": source["text_projection"].T,
        "visual_projection.weight": source["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": source["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": source["positional_embedding"],
        "text_model.final_layer_norm.weight": source["ln_final.weight"],
        "text_model.final_layer_norm.bias": source["ln_final.bias"],
        "vision_model.embeddings.class_embedding": source["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": source["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": source["visual.positional_embedding"],
    }
    for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        for part in ("weight", "bias"):
            state[f"vision_model.{theirs}.{part}"] = source[f"visual.{ours}.{part}"]
    towers = (("text_model", "transformer", text["layers"]), ("vision_model", "visual.transformer", vision["layers"]))
    for tower, prefix, layers in towers:
        for layer in range(layers):
            old, new = f"{prefix}.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
            for part in ("weight", "bias"):
                joint = source[f"{old}.attn.in_proj_{part}"].chunk(3)
                for name, value in zip(("q_proj", "k_proj", "v_proj"), joint, strict=True):
                    state[f"{new}.self_attn.{name}.{part}"] = value
                state[f"{new}.self_attn.out_proj.{part}"] = source[f"{old}.attn.out_proj.{part}"]
                state[f"{new}.layer_norm1.{part}"] = source[f"{old}.ln_1.{part}"]
                state[f"{new}.layer_norm2.{part}"] = source[f"{old}.ln_2.{part}"]
                state[f"{new}.mlp.fc1.{part}"] = source[f"{old}.mlp.c_fc.{part}"]
                state[f"{new}.mlp.fc2.{part}"] = source[f"{old}.mlp.c_proj.{part}"]
    missing = twin.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all("position_ids" in key for key in missing.missing_keys)
    return twin


@pytest.mark.parametrize("quick_gelu", [True, False])
@torch.no_grad()
def test_features_equal_those_of_transformers_clip(tmp_path, quick_gelu):
    torch.manual_seed(1)
    encoder = build_encoder(model_file(tmp_path, quick_gelu=quick_gelu), "", words_num=12).eval()
    for parameter in encoder.clip.parameters():  # away from an initialisation that would hide a swapped bias
        parameter.add_(0.05 * torch.randn_like(parameter))
    twin = transformers_twin(encoder)
    tokens = encoder.tokenize(CAPTIONS)
    words, word_mask, sentence = encoder.encode_text(tokens)
    padded = tokens.clone()
    text = twin.text_model(input_ids=padded)
    theirs = text.last_hidden_state[:, 1 : words.shape[2] + 1].transpose(1, 2)
    mask = word_mask[:, None]
    assert torch.allclose(words * mask, theirs * mask, atol=1e-4)
    assert torch.allclose(sentence, twin.text_projection(text.pooler_output), atol=1e-4)

    images = torch.rand(3, 3, 32, 32) * 2 - 1
    vision = twin.vision_model(pixel_values=encoder.preprocess(images), output_hidden_states=True)
    regions, image = encoder.encode_image(images)
    patches = vision.hidden_states[-1][:, 1:]  # before the final layer norm
    assert torch.allclose(regions, encoder.region_projection(patches).transpose(1, 2), atol=1e-4)
    assert torch.allclose(image, twin.visual_projection(vision.pooler_output), atol=1e-4)


@torch.no_grad()
def test_shapes_and_mask_follow_the_captions(encoder):
    words, word_mask, sentence = encoder.encode_text(encoder.tokenize(CAPTIONS))
    assert words.shape == (3, 48, 12) and word_mask.shape == (3, 12) and sentence.shape == (3, 24)
    assert word_mask.sum(1).tolist() == [7, 1, 12]
    assert encoder.tokenize.words_of(encoder.tokenize(CAPTIONS)[0]) == CAPTIONS[0].split()
    regions, image = encoder.encode_image(torch.zeros(2, 3, 64, 64))
    assert regions.shape == (2, 48, 16) and image.shape == (2, 24)
    assert encoder.region_grid == (4, 4)


@torch.no_grad()
def test_other_captions_of_the_batch_do_not_change_a_caption(encoder):
    together = encoder.encode_text(encoder.tokenize(CAPTIONS))
    for i, caption in enumerate(CAPTIONS):
        words, word_mask, sentence = encoder.encode_text(encoder.tokenize([caption]))
        assert torch.allclose(sentence, together[2][i : i + 1], atol=1e-5)
        assert torch.allclose(words[0], together[0][i, :, : words.shape[2]], atol=1e-5)
        assert word_mask.all()


def test_a_longer_caption_is_cut_at_its_end(encoder):
    long = " ".join(["red"] * 11 + ["blue"] + ["green"] * 20)
    tokens = encoder.tokenize([long])
    assert tokens.shape == (1, 14)
    assert encoder.tokenize.words_of(tokens[0])[-1] == "blue"


def test_tokens_are_as_long_as_the_longest_of_the_captions(encoder):
    for captions in (CAPTIONS, CAPTIONS[:2], CAPTIONS[1:2]):
        tokens = encoder.tokenize(captions)
        lengths = [len(encoder.tokenize.words_of(row)) + 2 for row in tokens]
        assert tokens.shape == (len(captions), max(lengths))
        for row, length in zip(tokens, lengths, strict=True):
            assert row.argmax() == length - 1 and not row[length:].any()
    more = torch.nn.functional.pad(tokens, (0, 5))  # columns of padding beyond
    assert torch.allclose(encoder.encode_text(more).sentence, encoder.encode_text(tokens).sentence, atol=1e-6)
    assert encoder.encode_text(more).word_mask.sum() == tokens.shape[1] - 2


@pytest.mark.parametrize("function", ["encode_text", "encode_image"])
def test_matrices_stored_in_16_bits_give_the_numbers_that_autocast_gives(tmp_path, function):
    torch.manual_seed(2)
    encoder = build_encoder(model_file(tmp_path), "", words_num=12).freeze()
    stored = copy.deepcopy(encoder).store_matrices_in(torch.bfloat16)
    low = {name for name, weight in stored.named_parameters() if weight.dtype == torch.bfloat16}
    assert {"clip.visual.proj", "clip.text_projection", "region_projection.weight"} < low
    assert not any("ln_" in name or "embedding" in name for name in low)
    inputs = encoder.tokenize(CAPTIONS) if function == "encode_text" else torch.rand(3, 3, 48, 48) * 2 - 1
    inputs = inputs.requires_grad_() if function == "encode_image" else inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, ours = getattr(encoder, function)(inputs), getattr(stored, function)(inputs)
    assert all(map(torch.equal, ours, expected))
    if function == "encode_image":
        gradients = [torch.autograd.grad(out.image.square().sum(), inputs)[0] for out in (expected, ours)]
        assert torch.equal(*gradients)


def test_a_caption_without_words_is_refused(encoder):
    with pytest.raises(UserError, match="has no words"):
        encoder.tokenize(["a bird", " "])


@torch.no_grad()
def test_resizing_and_normalising_agree_with_clips_own_preprocessing(encoder):
    """A photograph-like image through open_clip's own transform (Pillow's bicubic) gives nearly the same input."""
    from open_clip import image_transform

    torch.manual_seed(3)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), size=(80, 80), mode="bicubic").clamp(0, 1)
    picture = Image.fromarray((smooth[0].permute(1, 2, 0) * 255).round().byte().numpy())
    theirs = image_transform(32, is_train=False, mean=encoder.spec.image_mean, std=encoder.spec.image_std)(picture)
    ours = encoder.preprocess(smooth * 2 - 1)[0]
    assert (ours - theirs).abs().max() < 0.03  # a fraction of one of 255 grey levels is 0.015


def test_freezing_keeps_gradients_for_the_image_and_none_for_the_weights(tmp_path):
    frozen = build_encoder(model_file(tmp_path), "", words_num=5).freeze()
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    regions, image = frozen.encode_image(images)
    (regions.sum() + image.sum()).backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in frozen.parameters())


@torch.no_grad()
def test_a_saved_encoder_is_the_same_after_loading(encoder, tmp_path):
    save_encoder(tmp_path / "clip.pth", encoder, epoch=3)
    again = load_encoder(tmp_path / "clip.pth", model_file(tmp_path), words_num=12).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again.encode_image(images)[1], encoder.encode_image(images)[1])
    tokens = encoder.tokenize(CAPTIONS)
    assert torch.equal(again.encode_text(tokens)[0], encoder.encode_text(tokens)[0])


def test_another_architecture_is_refused(encoder, tmp_path):
    save_encoder(tmp_path / "clip.pth", encoder)
    with pytest.raises(UserError, match="another shape"):
        load_encoder(tmp_path / "clip.pth", "ViT-B-32")
    with pytest.raises(UserError, match=r"TEXT\.WORDS_NUM 12, but the config says 9"):
        load_encoder(tmp_path / "clip.pth", words_num=9)


@pytest.mark.parametrize(
    ("base", "pretrained", "expected"),
    [
        ("ViT-B-33", "", "did you mean ViT-B-32"),
        ("RN50", "", "no vision transformer"),
        ("ViT-B-32", "opnai", "openai"),
        ("nowhere.json", "", "no file at nowhere.json"),
    ],
)
def test_a_wrong_model_or_tag_is_refused(base, pretrained, expected):
    with pytest.raises(UserError, match=expected):
        build_encoder(base, pretrained, words_num=8)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="does not hold weights of tiny"):
        build_encoder(model_file(tmp_path), str(tmp_path / "weights.pt"), words_num=8)


@torch.no_grad()
def test_weights_from_a_file_are_used(encoder, tmp_path):
    torch.save(encoder.clip.state_dict(), tmp_path / "weights.pt")
    again = build_encoder(model_file(tmp_path), str(tmp_path / "weights.pt"), words_num=12).eval()
    tokens = encoder.tokenize(CAPTIONS)
    assert torch.equal(again.encode_text(tokens)[2], encoder.encode_text(tokens)[2])


def test_workers_get_the_tokenizer_without_the_weights(encoder):
    content = pickle.dumps(encoder.tokenize)
    assert len(content) < 3_000_000  # the vocabulary; the tiny encoder's embedding of it alone has as many bytes
    assert torch.equal(pickle.loads(content)(["a red bird"]), encoder.tokenize(["a red bird"]))


def test_the_fingerprint_tells_weights_apart(encoder, tmp_path):
    before = fingerprint(encoder)
    save_encoder(tmp_path / "encoder.pth", encoder)
    assert fingerprint(load_encoder(tmp_path / "encoder.pth")) == before
    changed = copy.deepcopy(encoder)
    with torch.no_grad():
        changed.region_projection.bias[0] += 1e-3
    assert fingerprint(changed) != before
