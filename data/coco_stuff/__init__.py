"""COCO-Stuff: things and stuff of COCO 2017's pictures, 171 classes."""
