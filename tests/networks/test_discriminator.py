"""The discriminators: equal to golden numbers, spectrally normalised, and judging each image by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipgan.losses.adversarial import discriminator_loss, generator_loss
from clipgan.networks.discriminator import Discriminator, JointConv, SpectralConv
from clipgan.runs.published import import_dmgan_discriminator

SIZES = [8, 16, 32, 64, 128]


def small_discriminator(image_size=16):
    torch.manual_seed(0)
    return Discriminator(image_size, df_dim=2, sentence_dim=5)


def small_inputs(image_size=16, batch=4):
    """Images and sentences."""
    torch.manual_seed(1)
    return torch.rand(batch, 3, image_size, image_size) * 2 - 1, torch.randn(batch, 5)


def judge(discriminator, images, sentence):
    """Features and both logits."""
    features = discriminator.features(images)
    return [features, discriminator.unconditional(features), discriminator.conditional(features, sentence)]


def normalised_convs(discriminator):
    return [module for module in discriminator.modules() if isinstance(module, SpectralConv)]


def singular_vectors(discriminator):
    return {name: tensor.clone() for name, tensor in discriminator.named_buffers() if name.endswith(("._u", "._v"))}


def test_the_joint_convolution_is_that_of_stacked_features_for_any_pairs():
    torch.manual_seed(0)
    conv = JointConv(3, 2, 4)
    features, vectors = torch.randn(5, 3, 4, 4, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    pairs = torch.tensor([0, 4, 4, 2]), torch.tensor([2, 0, 1, 1])
    stacked = torch.cat([features[pairs[0]], vectors[pairs[1]][:, :, None, None].expand(-1, -1, 4, 4)], dim=1)
    plain = F.conv2d(stacked, conv.weight, conv.bias, padding=1)
    gradient = torch.randn_like(plain)
    inputs = [features, vectors, *conv.parameters()]
    ours = conv(features, vectors, pairs)
    assert_close(ours, plain, atol=1e-6, rtol=1e-5)
    for a, b in zip(*(torch.autograd.grad(y, inputs, gradient) for y in (ours, plain)), strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)
    own = conv(features[:3], vectors)
    assert_close(own, conv(features, vectors, (torch.arange(3), torch.arange(3))), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_features_probabilities_and_losses_equal_the_golden_ones(golden, size):
    numbers = golden(f"discriminator{size}")
    discriminator = Discriminator(size, df_dim=4, sentence_dim=16).eval()
    discriminator.load_state_dict(import_dmgan_discriminator(numbers["state"]))
    real, fake = (
        numbers[name].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3) for name in ("real_small", "fake_small")
    )
    sentence = numbers["condition"]
    with torch.no_grad():
        features, unconditional, conditional = judge(discriminator, real, sentence)
        loss_d = discriminator_loss(discriminator, real, [fake], [sentence])
        loss_g = generator_loss(discriminator, fake, sentence)
    for ours, name in (
        (features, "features"),
        (unconditional.sigmoid(), "uncond_probability"),
        (conditional.sigmoid(), "cond_probability"),
        (loss_d, "discriminator_loss"),
        (loss_g, "generator_adversarial_loss"),
    ):
        assert_close(ours, numbers[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_gives_the_right_shapes(size):
    discriminator = small_discriminator(size)
    features, unconditional, conditional = judge(discriminator, *small_inputs(size))
    channels = 8 * 2
    assert features.shape == (4, channels, 4, 4)
    assert unconditional.shape == conditional.shape == (4,)


@pytest.mark.parametrize(("size", "widths"), [
    (8, [2, 4, 8, 16]), (32, [2, 4, 8, 16]), (64, [2, 4, 8, 16]), (128, [2, 4, 8, 16, 32, 16]),
    (256, [2, 4, 8, 16, 32, 64, 32, 16]),
])  # fmt: skip
def test_channels_double_with_each_halving_and_come_back_to_8_df(size, widths):
    convs = [module for module in small_discriminator(size).trunk if isinstance(module, SpectralConv)]
    assert [conv.out_channels for conv in convs] == widths
    assert sum(conv.stride == (2, 2) for conv in convs) == (size // 4).bit_length() - 1


def test_layers_start_orthogonal_without_biases():
    discriminator = small_discriminator(32)
    weights = [conv.parametrizations.weight.original for conv in normalised_convs(discriminator)]
    weights += [discriminator.unconditional_head.weight, discriminator.conditional_head.weight]
    for weight in weights:
        rows = weight.detach().flatten(1)
        assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-4, rtol=0)
    biases = [tensor for name, tensor in discriminator.named_parameters() if name.endswith("bias")]
    assert len(biases) == len(weights) and not any(bias.any() for bias in biases)


def test_permuting_the_batch_permutes_every_output():
    discriminator, (images, sentence) = small_discriminator().eval(), small_inputs()
    order = torch.tensor([2, 3, 1, 0])
    with torch.no_grad():
        expected = [tensor[order] for tensor in judge(discriminator, images, sentence)]
        assert_close(judge(discriminator, images[order], sentence[order]), expected)


def test_an_image_is_judged_alike_alone_and_among_others():
    discriminator, (images, sentence) = small_discriminator().eval(), small_inputs()
    with torch.no_grad():
        expected = [tensor[:1] for tensor in judge(discriminator, images, sentence)]
        assert_close(judge(discriminator, images[:1], sentence[:1]), expected)


def test_the_sentence_moves_the_conditional_logit_only():
    discriminator, (images, sentence) = small_discriminator().eval(), small_inputs()
    with torch.no_grad():
        features, unconditional, conditional = judge(discriminator, images, sentence)
        other = judge(discriminator, images, sentence.flip(0))
    assert other[0].equal(features) and other[1].equal(unconditional)
    assert (other[2] - conditional).abs().min() > 1e-4


@pytest.mark.parametrize("size", [16, 128])
def test_after_many_iterations_the_largest_singular_value_of_each_normalised_weight_is_1(size):
    discriminator, inputs = small_discriminator(size), small_inputs(size)
    with torch.no_grad():
        for conv in normalised_convs(discriminator):
            conv.parametrizations.weight.original.mul_(3).add_(0.05)
        for _ in range(100):
            judge(discriminator, *inputs)
    convs = normalised_convs(discriminator.eval())
    assert len(convs) == len([module for module in discriminator.trunk if isinstance(module, SpectralConv)]) + 1
    for conv in convs:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=1e-3)


def test_in_evaluation_mode_the_singular_vectors_stay_and_in_training_mode_they_move():
    discriminator, inputs = small_discriminator(), small_inputs()
    before = singular_vectors(discriminator.eval())
    judge(discriminator, *inputs)
    assert all(tensor.equal(before[name]) for name, tensor in singular_vectors(discriminator).items())
    judge(discriminator.train(), *inputs)
    assert not any(tensor.equal(before[name]) for name, tensor in singular_vectors(discriminator).items())


@pytest.mark.parametrize("size", [8, 16, 128])
def test_gradients_reach_every_parameter(size):
    discriminator, (images, sentence) = small_discriminator(size), small_inputs(size)
    discriminator_loss(discriminator, images, [-images], [sentence]).backward()
    parameters = discriminator.named_parameters()
    assert [name for name, weight in parameters if weight.grad is None or not weight.grad.any()] == []


def test_gradients_reach_the_image_through_both_heads():
    discriminator, (images, sentence) = small_discriminator().requires_grad_(False).eval(), small_inputs()
    _, unconditional, conditional = judge(discriminator, images.requires_grad_(), sentence)
    for logits in (unconditional, conditional):
        (gradient,) = torch.autograd.grad(logits.sum(), images, retain_graph=True)
        assert gradient.flatten(1).norm(dim=1).min() > 0


def test_bf16_autocast_trains_and_stays_close_to_float32():
    discriminator, (images, sentence) = small_discriminator(32).eval(), small_inputs(32)

    def loss_and_gradient():
        loss = discriminator_loss(discriminator, images, [-images], [sentence])
        return loss, torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(discriminator.parameters()))])

    expected, expected_gradient = loss_and_gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = loss_and_gradient()
    assert loss.dtype == gradient.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    assert F.cosine_similarity(gradient, expected_gradient, dim=0) > 0.99


def test_weights_are_normalised_outside_autocast():
    # On CUDA, autocast would take the products of the power iteration in low precision; on a CPU it lets them be.
    discriminator, inputs = small_discriminator(), small_inputs()
    autocast = []
    for conv in normalised_convs(discriminator):
        normalisation = conv.parametrizations.weight[0]
        normalisation.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = judge(discriminator, *inputs)[2]
    assert autocast == [False] * len(normalised_convs(discriminator))
    assert logits.dtype == torch.bfloat16


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, 16, 16\], not \[4, 3, 32, 32\]"):
        small_discriminator(16).features(small_inputs(32)[0])


@pytest.mark.parametrize("size", [4, 12])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"power of two, 8 or more, not {size}"):
        small_discriminator(size)
