"""ImageNet, or any folder of pictures."""
