"""The CLIP encoder, the generator and the discriminators."""
