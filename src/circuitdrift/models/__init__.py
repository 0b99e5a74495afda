"""Base models: where they come from, how they load, and LoRA on top of them."""
