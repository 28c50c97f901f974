"""From a trained model and a sentence to pictures: one file, one call, one page."""
