"""What fine-tuning changes inside a language model, measured as circuits at every checkpoint."""
