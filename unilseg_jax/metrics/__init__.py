"""Metrics, counted on the host in int64 and float64, mergeable over processes."""
