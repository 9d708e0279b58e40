"""What a gateway counts: requests are passages, seconds are windows, and windows go on the log."""
