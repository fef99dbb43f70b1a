"""PartImageNet: parts of animals and things on ImageNet pictures."""
