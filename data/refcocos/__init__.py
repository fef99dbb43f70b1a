"""RefCOCOs: harder referring expressions on COCO val2017."""
