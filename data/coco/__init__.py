"""COCO 2017: instances and panoptic segments."""
