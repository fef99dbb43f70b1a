"""Weights in and out: PyTorch's and Hugging Face's layouts."""
