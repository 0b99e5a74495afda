"""Circuits tested in the real model: its neurons' activations recorded, replaced and put back."""
