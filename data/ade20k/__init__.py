"""ADE20K in the form of the scene parsing challenge: 150 classes."""
