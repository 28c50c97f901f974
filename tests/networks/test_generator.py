"""The generator: equal to golden numbers, its savings exact, and indifferent to what must not matter."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from clipgan.networks.blocks import ResidualBlock, upsampled_conv
from clipgan.networks.generator import Generator
from clipgan.networks.memory import DynamicMemory
from clipgan.runs.published import import_dmgan_generator

SMALL = {"gf_dim": 4, "z_dim": 5, "condition_dim": 6, "word_dim": 7, "sentence_dim": 9, "residual_num": 2}


def small_generator(base_size=16, branch_num=3):
    torch.manual_seed(0)
    return Generator(**SMALL, base_size=base_size, branch_num=branch_num)


def small_inputs(lengths=(3, 6, 1, 4), words_num=6):
    """Noise, condition noise, sentences, words, mask."""
    torch.manual_seed(1)
    batch = len(lengths)
    mask = torch.arange(words_num) < torch.tensor(lengths)[:, None]
    sizes = [SMALL["z_dim"]], [SMALL["condition_dim"]], [SMALL["sentence_dim"]], [SMALL["word_dim"], words_num]
    return [*(torch.randn(batch, *size) for size in sizes), mask]


def flat(out):
    """All tensors of a GeneratorOutput in one list."""
    return [*out.images, *out.attention, out.mu, out.logvar]


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("generator")


@pytest.fixture
def golden_generator(numbers):
    generator = Generator(
        gf_dim=4, z_dim=10, condition_dim=8, word_dim=16, sentence_dim=16, residual_num=2
    )
    generator.load_state_dict(import_dmgan_generator(numbers["state"]))
    return generator


def draw_golden(generator, numbers, invert_mask=False):
    mask = torch.arange(7) < numbers["caption_lengths"][:, None]
    with torch.no_grad():
        return generator(
            numbers["noise"], torch.zeros(3, 8), numbers["sentence"], numbers["words"], mask ^ invert_mask
        )


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_images_equal_the_golden_ones(golden_generator, numbers, mode):
    out = draw_golden(golden_generator.train(mode == "train"), numbers)
    for image, size, step in zip(out.images, (64, 128, 256), (4, 8, 16), strict=True):
        assert image.shape == (3, 3, size, size)
        assert_close(image[:, :, ::step, ::step], numbers[f"{mode}_image{size}"], atol=1e-4, rtol=0)


def test_attention_and_condition_equal_the_golden_ones(golden_generator, numbers):
    out = draw_golden(golden_generator.eval(), numbers)
    for attention, size, step in zip(out.attention, (128, 256), (8, 16), strict=True):
        assert_close(attention[:, :, ::step, ::step], numbers[f"eval_attention{size}"], atol=1e-4, rtol=0)
    assert_close(out.mu, numbers["mu"], atol=1e-4, rtol=0)
    assert_close(out.logvar, torch.full((3, 8), -60.0), atol=1e-4, rtol=0)


def test_an_inverted_mask_is_far_from_the_golden_images(golden_generator, numbers):
    out = draw_golden(golden_generator.eval(), numbers, invert_mask=True)
    for image, size, step in zip(out.images[1:], (128, 256), (8, 16), strict=True):
        assert (image[:, :, ::step, ::step] - numbers[f"eval_image{size}"]).abs().max() > 1e-3


@pytest.mark.parametrize("branch_num", [1, 2, 3])
@pytest.mark.parametrize("base_size", [8, 16, 32])
def test_every_size_and_number_of_branches_gives_the_right_shapes(base_size, branch_num):
    generator, inputs = small_generator(base_size, branch_num), small_inputs()
    out = generator(*inputs)
    sizes = [base_size * 2**i for i in range(branch_num)]
    assert [tuple(image.shape) for image in out.images] == [(4, 3, size, size) for size in sizes]
    assert [tuple(maps.shape) for maps in out.attention] == [(4, 6, size, size) for size in sizes[:-1]]
    assert out.mu.shape == out.logvar.shape == (4, SMALL["condition_dim"])
    assert all(image.abs().max() <= 1 for image in out.images)


@pytest.mark.parametrize("training", [True, False])
def test_permuting_the_batch_permutes_every_output(training):
    # In float64: the batch norm of few samples magnifies float32's rounding, which depends on the order.
    generator = small_generator().train(training).double()
    inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in small_inputs()]
    order = torch.tensor([2, 3, 1, 0])
    with torch.no_grad():
        expected = [tensor[order] for tensor in flat(generator(*inputs))]
        permuted = flat(generator(*(tensor[order] for tensor in inputs)))
    assert_close(permuted, expected, atol=2e-6, rtol=0)


def test_padding_a_caption_changes_nothing():
    generator, inputs = small_generator().eval(), small_inputs()
    *others, words, mask = inputs
    padded = torch.cat([words.masked_fill(~mask[:, None], 50.0), torch.randn(4, SMALL["word_dim"], 3)], dim=2)
    with torch.no_grad():
        expected = generator(*inputs)
        out = generator(*others, padded, F.pad(mask, (0, 3)))
    assert_close(out.images, expected.images, atol=1e-6, rtol=0)
    assert_close(out.attention, [F.pad(maps, (0, 0, 0, 0, 0, 3)) for maps in expected.attention], atol=1e-6, rtol=0)


def test_a_pixel_s_attention_sums_to_1_over_the_real_words_and_is_0_at_padding():
    inputs = small_inputs()
    mask = inputs[-1]
    with torch.no_grad():
        attention = small_generator()(*inputs).attention
    for maps in attention:
        assert_close(maps.sum(dim=1), torch.ones(4, *maps.shape[2:]))
        assert not maps.transpose(0, 1)[:, ~mask.any(dim=1)].any()
        assert (maps.amax(dim=(2, 3)) > 0).equal(mask)


def test_weights_in_the_place_of_the_mask_count_words_that_often():
    generator, (*others, words, mask) = small_generator().eval(), small_inputs((6, 6, 6, 6))
    once, twice = torch.rand(4, 6) * 0.4 + 0.1, torch.cat([words, words], dim=2)
    with torch.no_grad():
        expected = generator(*others, words, mask)
        ones, halves = generator(*others, words, mask.float()), generator(*others, twice, mask.repeat(1, 2) * 0.5)
        weighted, split = generator(*others, words, once), generator(*others, twice, (once / 2).repeat(1, 2))
        without = generator(*others, torch.cat([words, torch.randn_like(words)], dim=2), F.pad(mask.float(), (0, 6)))
    assert all(map(torch.equal, flat(ones), flat(expected)))
    assert_close(halves.images, expected.images, atol=1e-5, rtol=0)
    assert_close(split.images, weighted.images, atol=1e-5, rtol=0)
    assert (weighted.images[-1] - expected.images[-1]).abs().max() > 1e-3
    assert_close(without.images, expected.images, atol=1e-6, rtol=0)


def test_a_caption_without_words_still_gives_an_image_and_reads_nothing():
    generator, (*others, words, mask) = small_generator().eval(), small_inputs(lengths=(3, 0))
    with torch.no_grad():
        out = generator(*others, words, mask)
        other_words = generator(*others, words + 1, mask)
    assert all(image.isfinite().all() for image in out.images)
    # The words of a masked caption move nothing but the gate between unread memories.
    assert_close(out.images[-1][1], other_words.images[-1][1], atol=1e-6, rtol=0)
    assert (out.images[-1][0] - other_words.images[-1][0]).abs().max() > 1e-4


def test_the_condition_is_its_mean_plus_noise_times_sigma():
    class Fixed(nn.Module):
        def __init__(self, mu, sigma):
            super().__init__()
            self.numbers = torch.full((4, 6), mu), torch.full((4, 6), 2 * math.log(sigma))

        def forward(self, sentence):
            return self.numbers

    generator, (noise, _, *text) = small_generator().eval(), small_inputs()
    with torch.no_grad():
        generator.condition = Fixed(1.0, 3.0)
        drawn = generator(noise, torch.full((4, 6), 0.5), *text).images
        generator.condition = Fixed(2.5, 1.0)
        expected = generator(noise, torch.zeros(4, 6), *text).images
    assert_close(drawn, expected)


def test_gradients_reach_every_parameter():
    generator = small_generator()
    sum(tensor.square().sum() for tensor in flat(generator(*small_inputs()))).backward()
    without = [name for name, weight in generator.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_bf16_autocast_trains_and_stays_close_to_float32():
    generator, inputs = small_generator(), small_inputs()
    expected = generator(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = generator(*inputs)
    assert all(image.dtype == torch.float32 for image in out.images)
    for image, exact in zip(flat(out), flat(expected), strict=True):
        assert (image - exact).abs().mean() < 0.02 * exact.abs().mean().clamp_min(0.5)

    def gradient(of):
        weights = list(generator.parameters())
        return torch.cat([part.flatten() for part in torch.autograd.grad(of.images[-1].square().mean(), weights,
                                                                       allow_unused=True, materialize_grads=True)])

    assert F.cosine_similarity(gradient(out), gradient(expected), dim=0) > 0.98


def test_layers_start_orthogonal_with_batch_norm_near_1():
    torch.manual_seed(0)
    generator = Generator(**{**SMALL, "gf_dim": 16}, base_size=16, branch_num=2)
    for module in generator.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            matrix = module.weight.detach().flatten(1)
            product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
            assert_close(product, torch.eye(len(product)), atol=1e-4, rtol=0)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    scales = torch.cat([norm.weight.detach() for norm in norms])
    assert scales.mean() == pytest.approx(1, abs=0.002) and scales.std() == pytest.approx(0.02, rel=0.1)
    assert not any(norm.bias.any() for norm in norms)


@pytest.mark.parametrize("name", ["noise", "condition_noise", "sentence", "words", "word_mask"])
def test_an_input_of_another_shape_is_named(name):
    names = ["noise", "condition_noise", "sentence", "words", "word_mask"]
    inputs = dict(zip(names, small_inputs(), strict=True))
    inputs[name] = inputs[name][:, :-1]
    # Words that are too narrow are themselves at fault; a mask that is too short, too.
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        small_generator(branch_num=1)(**inputs)


@pytest.mark.parametrize("wrong", [{"base_size": 12}, {"base_size": 4}, {"branch_num": 0}, {"residual_num": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Generator(**{**SMALL, "base_size": 8, "branch_num": 2, **wrong})


def with_gradients(function, *inputs):
    """The function's value and the gradients of a fixed random projection of it, by its inputs."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = function(*inputs)
    torch.manual_seed(2)
    direction = torch.randn(value.shape)
    return [value, *torch.autograd.grad((value * direction).sum(), inputs)]


def assert_same_function(ours, plain, *inputs):
    for our_value, value in zip(with_gradients(ours, *inputs), with_gradients(plain, *inputs), strict=True):
        assert (our_value - value).norm() <= 1e-5 * value.norm()


@pytest.mark.parametrize("size", [4, 8, 11])
def test_convolution_after_upsampling_equals_the_plain_form(size):
    torch.manual_seed(0)
    assert_same_function(
        upsampled_conv,
        lambda x, weight: F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, padding=1),
        torch.randn(2, 5, size, size + 1), torch.randn(6, 5, 3, 3),
    )


def test_the_first_residual_block_on_doubled_features_equals_the_plain_form():
    torch.manual_seed(0)
    block = ResidualBlock(10)
    names = [name for name, _ in block.named_parameters()]

    def run(forward):
        def function(x, *weights):
            for name, weight in zip(names, weights, strict=True):
                module, kind = name.split(".")
                part = getattr(block, module)
                part._parameters.pop(kind, None)
                setattr(part, kind, weight)
            return forward(x)

        return function

    weights = [weight.detach() for weight in block.parameters()]
    plain = run(lambda x: block(torch.cat([x, x], dim=1)))
    assert_same_function(run(block.forward_doubled), plain, torch.randn(3, 5, 6, 7), *weights)


def test_the_memory_equals_its_definition_pixel_by_pixel():
    """Each caption alone, without its padding, each pixel alone: DM-GAN §3.2 as written there."""
    torch.manual_seed(0)
    channels, width = 4, 7
    memory = DynamicMemory(channels, width)
    lengths = [3, 5, 1]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]

    def plain(features, words):
        refined = []
        for h, w, length in zip(features, words, lengths, strict=True):
            w = w[:, :length]  # [D, L]
            mean = h.mean(dim=(1, 2)).detach()  # [C]
            slots = []
            for word in w.T:
                gate = torch.sigmoid(memory.word_gate(word) + memory.image_gate(mean))
                from_word = F.relu(memory.word_writer(word[None, :, None]))[0]
                from_image = F.relu(memory.image_writer(mean[None, :, None]))[0]
                slots.append(gate * from_word + (1 - gate) * from_image)
            slots = torch.cat(slots, dim=1)[None]  # [1, 2C, L]
            key, value = F.relu(memory.key(slots))[0], F.relu(memory.value(slots))[0]  # [C, L]
            pixels = []
            for pixel in h.flatten(1).T:
                attention = (pixel @ key).softmax(dim=0)  # [L]
                response = value @ attention  # [C]
                logit = memory.response_gate(torch.cat([pixel, response])[None, :, None, None])
                gate = torch.sigmoid(logit).flatten()
                pixels.append((1 - gate) * pixel + gate * response)
            refined.append(torch.stack(pixels, dim=1).view_as(h))
        return torch.stack(refined)

    features, words = torch.randn(3, channels, 3, 2), torch.randn(3, width, 5)
    assert_same_function(lambda h, w: memory(h, w, mask)[0], plain, features, words)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    assert_same_function(lambda h, w: memory(h, w, mask)[0], plain, channels_last, words)


def test_the_memory_sends_no_gradient_through_the_mean_of_the_features():
    """The writing gate sees the mean detached: with all reading cut off, features get what they pass on."""
    torch.manual_seed(0)
    memory = DynamicMemory(4, 7)
    with torch.no_grad():
        memory.response_gate.weight.zero_()
        memory.response_gate.bias.fill_(100.0)  # the response alone
        memory.key.weight.zero_()  # even attention: the pixel's own features do not matter
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    refined, attention = memory(features, torch.randn(2, 7, 5), torch.ones(2, 5, dtype=torch.bool))
    refined.square().sum().backward()
    assert features.grad.abs().max() < 1e-12
    assert not attention.requires_grad
