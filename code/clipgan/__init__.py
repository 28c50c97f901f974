"""CLIP-conditioned DM-GAN: fine-tune CLIP, train a text-to-image GAN on it, measure the result."""
