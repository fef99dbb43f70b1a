"""Pascal Context: the 59 frequent classes on pictures of VOC 2010."""
