"""ECSSD, DUTS, SOD, PASCAL-S, and folders of pictures with salient objects of your own."""
