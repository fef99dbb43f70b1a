"""gRefCOCO: referring expressions for one object, for several, and for none."""
