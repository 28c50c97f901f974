"""The scores, each as a pure function of features."""
