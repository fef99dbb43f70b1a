"""One judge for each task: what is asked, what is compared, what is counted."""
